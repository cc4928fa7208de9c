package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// pipes gives n descriptors to hand over, and their writing ends.
func pipes(t *testing.T, n int) (fds []int, ends []*os.File) {
	t.Helper()
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		fds, ends = append(fds, fd), append(ends, w)
	}
	return fds, ends
}

func TestHandover(t *testing.T) {
	asking, giving := make(chan int, 1), make(chan []*os.File, 1)
	_, path := serve(t, Config{Service: &fake{}, Handover: func(_ context.Context, pid int) (Handover, error) {
		asking <- pid
		h := Handover{Service: "web", Generation: 3, Release: "v2", Names: []string{"http", "admin"},
			Environment: map[string]string{"PAD": strings.Repeat("x", 200_000)}} // more than one write takes
		var ends []*os.File
		h.FDs, ends = pipes(t, 2)
		giving <- ends
		return h, nil
	}})
	h, err := NewClient(path).Handover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(h.FDs)
	ends := <-giving
	if asked := <-asking; asked != os.Getpid() {
		t.Errorf("process %d asked, not %d", asked, os.Getpid())
	}
	if h.Service != "web" || h.Generation != 3 || h.Release != "v2" || len(h.FDs) != 2 || len(h.Environment["PAD"]) != 200_000 {
		t.Errorf("got %d sockets of generation %d of %s", len(h.FDs), h.Generation, h.Service)
	}
	for i, fd := range h.FDs {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %x, %v", fd, flags, err)
		}
		fmt.Fprint(ends[i], h.Names[i])
		got := make([]byte, 16)
		n, err := unix.Read(fd, got)
		if err != nil || string(got[:n]) != h.Names[i] {
			t.Errorf("through descriptor %d came %q, %v", i, got[:n], err)
		}
	}
}

// Descriptors of an answer that cannot be used are not kept.
func TestAHandoverThatCannotBe(t *testing.T) {
	refusal := &Error{Code: NotPermitted, Message: "process 1 is in no unit of web"}
	given := Handover{Names: []string{"http"}}
	var failure atomic.Pointer[Error]
	_, path := serve(t, Config{Service: &fake{}, Handover: func(context.Context, int) (Handover, error) {
		h := given
		h.FDs, _ = pipes(t, 2) // one more than is named
		if e := failure.Load(); e != nil {
			return h, e
		}
		return h, nil
	}})
	if _, err := NewClient(path).Handover(t.Context()); err == nil || !strings.Contains(err.Error(), "2 sockets came, 1 were named") {
		t.Errorf("the error is %v", err)
	}
	failure.Store(refusal)
	if _, err := NewClient(path).Handover(t.Context()); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("the error is %v", err)
	}
	_, path = serve(t, Config{Service: &fake{}})
	if _, err := NewClient(path).Handover(t.Context()); !errors.Is(err, ErrUsage) {
		t.Errorf("the error is %v", err)
	}
}

// Whoever reads the answer as any other gets its text.
func TestAHandoverToOneWhoTakesNoDescriptors(t *testing.T) {
	_, path := serve(t, Config{Service: &fake{}, Handover: func(context.Context, int) (Handover, error) {
		h := Handover{Names: []string{"http"}}
		h.FDs, _ = pipes(t, 1)
		return h, nil
	}})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/handover HTTP/1.1\r\nHost: proxyd\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
	text, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(text), `"names":["http"]`) {
		t.Errorf("%v: %s", err, text)
	}
}
