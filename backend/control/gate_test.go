package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func uid() uint32 { return uint32(os.Geteuid()) }

// asStranger runs do on a thread of its own with another effective uid where we
// may change it, and tells whether it could. The system calls themselves change
// only the calling thread, which is thrown away afterwards.
func asStranger(t *testing.T, do func()) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	done := make(chan error)
	go func() { // ends after do; the test waits on done
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		const keep, stranger = ^uintptr(0), 12345
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, keep, stranger, keep},
			{unix.SYS_SETRESUID, keep, stranger, keep},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				done <- errno
				return
			}
		}
		do()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return true
}

func TestPeerIsReadFromTheDescriptor(t *testing.T) {
	f := &fake{}
	_, path := serve(t, Config{Service: f})

	ask := func() (read, change error) {
		c := NewClient(path)
		_, read = c.Status(context.Background())
		_, change = c.Stage(context.Background(), StageRequest{})
		return read, change
	}
	if read, change := ask(); read != nil || change != nil {
		t.Fatalf("our own user: %v, %v", read, change)
	}
	for d := filepath.Dir(path); d != os.TempDir(); d = filepath.Dir(d) { // the stranger must get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	// The one who connects counts, so a connection made by the stranger is used
	// from here.
	var fds []int
	dialStranger := func() { fds = append(fds, dialRaw(t, path)) }
	if !asStranger(t, dialStranger) {
		// As near as it gets without root: to another's proxyd we are the stranger.
		_, path = serve(t, Config{Service: f}, func(s *Server) { s.gate.own = uid() + 1 })
		if read, change := ask(); read != nil || !errors.Is(change, ErrNotPermitted) {
			t.Fatalf("a stranger: %v, %v", read, change)
		}
		return
	}
	if fds[0] != -int(unix.EACCES) {
		t.Fatalf("connecting to a 0660 socket gave %d", fds[0])
	}
	os.Chmod(path, 0o666) // as if it were in the group
	asStranger(t, dialStranger)
	asStranger(t, dialStranger)
	if got := roundTrip(t, fds[1], "GET /v1/status HTTP/1.0\r\n\r\n"); !strings.Contains(got, "200 OK") {
		t.Errorf("a stranger may look: %s", got)
	}
	got := roundTrip(t, fds[2], "POST /v1/stage HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
	if !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, "uid 12345 may look") {
		t.Errorf("a stranger may not change anything: %s", got)
	}
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests arrived, want our own only", n)
	}
}

// dialRaw connects on this thread and gives the descriptor, or an errno below 0.
func dialRaw(t *testing.T, path string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return -1
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		var errno unix.Errno
		errors.As(err, &errno)
		return -int(errno)
	}
	return fd
}

func roundTrip(t *testing.T, fd int, request string) string {
	t.Helper()
	if fd < 0 {
		t.Fatal("not connected")
	}
	f := os.NewFile(uintptr(fd), "conn")
	defer f.Close()
	if _, err := io.WriteString(f, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// Whatever others keep open, root gets in at once: its status passes through the
// same queue behind all of them, so that its answer says that they were let in,
// and that it was.
func TestNobodyKeepsRootOut(t *testing.T) {
	const most = 8
	f := &fake{eventsFn: func(context.Context, uint64) (<-chan HistoryEntry, error) { return make(chan HistoryEntry), nil }}
	s, path := serve(t, Config{Service: f, MaxConnections: most}, func(s *Server) {
		s.gate.own = 4711
		s.gate.peer = func(c net.Conn) (uint32, error) { // whose socket has a name is a stranger
			if filepath.IsAbs(c.RemoteAddr().String()) {
				return 12345, nil
			}
			return 0, nil
		}
	})
	dir, n := t.TempDir(), 0
	stranger := func() net.Conn {
		n++
		d := net.Dialer{LocalAddr: &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, fmt.Sprint(n))}}
		c, err := d.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	root := func(what string) {
		t.Helper()
		if _, err := NewClient(path).Status(context.Background()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		if open := len(s.gate.conns); open > most {
			t.Errorf("%s: %d connections are open", what, open)
		}
	}
	for what, send := range map[string]string{
		"nothing":         "",
		"half a request":  "GET /v1/stat",
		"half the header": "GET /v1/status HTTP/1.1\r\nHost: proxyd\r\nX-A: b",
		"half a body":     "POST /v1/stage HTTP/1.1\r\nHost: proxyd\r\nContent-Length: 1000\r\n\r\n{\"rel",
		"idle":            "GET /v1/status HTTP/1.1\r\nHost: proxyd\r\n\r\n",
		"a stream":        "GET /v1/events?follow=1 HTTP/1.1\r\nHost: proxyd\r\n\r\n",
		"a huge header":   "GET /v1/status HTTP/1.1\r\nX-A: " + strings.Repeat("a", 4*maxHeader),
		"a huge line":     "GET /" + strings.Repeat("a", 4*maxHeader),
		"a huge body":     "POST /v1/stage HTTP/1.1\r\nHost: proxyd\r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat("a", 2*maxBody),
		"no HTTP":         "\x16\x03\x01\x02\x00\x01\x00",
	} {
		for range 3 * most {
			c := stranger()
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			io.WriteString(c, send) // may fail: it may be dropped at once
		}
		root(what)
	}
	if got := f.requests(); len(got) > 0 {
		t.Errorf("strangers changed something: %v", got)
	}
}

func TestRootDisplacesItself(t *testing.T) {
	const most = 4
	f := &fake{eventsFn: func(context.Context, uint64) (<-chan HistoryEntry, error) { return make(chan HistoryEntry), nil }}
	_, path := serve(t, Config{Service: f, MaxConnections: most})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var first <-chan HistoryEntry
	for range 3 * most {
		entries, err := NewClient(path).Events(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = entries
		}
	}
	for range first { // closed: it had to go
	}
	if _, err := NewClient(path).Status(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestWhoHasToGo(t *testing.T) {
	const own, other, stranger = 1000, 1001, 1002
	g := newGate(3, own)
	add := func(uid uint32) *conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return g.admit(a, uid)
	}
	in := func(c *conn) bool { return c != nil && g.conns[c] }
	first, second, third := add(other), add(other), add(other)
	first.setServing(true)
	if fourth := add(stranger); !in(fourth) || !in(first) || in(second) || !in(third) {
		t.Fatal("the one that is idle for longest has to go, not the one that is answered")
	} else if fifth := add(own); !in(fifth) || in(third) || !in(fourth) {
		t.Fatal("the next idle one has to go")
	} else {
		fourth.setServing(true)
		if sixth := add(stranger); sixth != nil {
			t.Fatal("a stranger displaced one that is answered")
		}
		if sixth := add(0); !in(sixth) || in(first) || !in(fifth) {
			t.Fatal("for root one that is answered has to go, a stranger's first")
		}
		seventh := add(0)
		if in(fourth) || !in(fifth) {
			t.Fatal("strangers go before trusted ones")
		}
		fifth.setServing(true)
		if eighth := add(0); !in(eighth) || !in(fifth) || in(seventh) && len(g.conns) > 3 {
			t.Fatal("idle trusted ones go before answered ones")
		}
	}
	g.shut()
	if add(0) != nil {
		t.Error("let in after the end")
	}
}

// For want of descriptors accept(2) fails; the control socket must outlive that.
func TestAcceptErrorsAreWaitedOut(t *testing.T) {
	path := t.TempDir() + "/c.sock"
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Service: &fake{}})
	failing := &failingListener{Listener: l, errs: []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}}
	served := make(chan error, 1)
	go func() { served <- s.Serve(failing) }() // ends with Shutdown
	if _, err := NewClient(path).Status(context.Background()); err != nil {
		t.Error(err)
	}
	s.Shutdown(context.Background())
	if err := <-served; err != nil {
		t.Error(err)
	}
	if len(failing.errs) > 0 {
		t.Error("not every error was met")
	}
}

type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}
