package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestClientTellsWhyNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	unix.Close(listenRaw(t, dead))
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"):            ErrNotRunning,
		filepath.Join(dir, "no", "dir"):          ErrNotRunning,
		filepath.Join(dead, "x"):                 ErrNotRunning,
		dead:                                     ErrNotRunning,
		"/" + strings.Repeat("a", maxSocketPath): ErrUsage,
		"@abstract":                              ErrUsage,
	} {
		if _, err := NewClient(path).Status(context.Background()); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestClientMayNotConnect(t *testing.T) {
	// Another user than root is refused by the mode; root is by nothing, so it is
	// tried on a thread that is not root.
	_, path := serve(t, Config{Service: &fake{}})
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	try := func() {
		if fd := dialRaw(t, path); fd >= 0 {
			unix.Close(fd)
			t.Error("connected")
		} else if err := NewClient(path).explain(context.Background(), &net.OpError{Err: os.NewSyscallError("connect", unix.Errno(-fd))}); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("explained as %v", err)
		}
	}
	if !asStranger(t, try) {
		try()
	}
}

func TestClientTimeout(t *testing.T) {
	// Someone listens and never answers; a full queue is waited at no longer.
	path := filepath.Join(t.TempDir(), "c.sock")
	fd := listenRaw(t, path)
	defer unix.Close(fd)
	over, cancel := context.WithTimeout(context.Background(), 1)
	defer cancel()
	if _, err := NewClient(path).Status(over); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewClient(path).Status(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A full queue means that proxyd is there: the client waits for its turn.
func TestClientWaitsForAFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	fd := listenRaw(t, path)
	f := os.NewFile(uintptr(fd), "listener")
	for full := false; !full; {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		full = errors.Is(unix.Connect(c, &unix.SockaddrUnix{Name: path}), unix.EAGAIN)
	}
	over, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(path).Status(over); !errors.Is(err, ErrTimeout) || over.Err() == nil {
		t.Errorf("it did not wait until its time was over: %v", err)
	}
	answered := make(chan error, 1)
	go func() { // ends with the answer
		_, err := NewClient(path).Status(context.Background())
		answered <- err
	}()
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Service: &fake{}})
	go s.Serve(l) // ends with Shutdown; goleak waits for it
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestClientMeetsSomethingElse(t *testing.T) {
	for answer, want := range map[string]string{
		"220 smtp ready\r\n": "the connection to proxyd was lost",
		"":                   "the connection to proxyd was lost",
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhiya":            "does not speak proxyd's protocol",
		"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{":             "the connection to proxyd was lost",
		"HTTP/1.1 418 Tea\r\nContent-Length: 2\r\n\r\n{}":             "HTTP status 418",
		"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"schema\":9}": "schema 9, this program reads 1",
	} {
		path := filepath.Join(t.TempDir(), "c.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() { // ends after one answer
			defer close(over)
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, answer)
			c.Close()
		}()
		_, err = NewClient(path).Status(context.Background())
		if !errors.Is(err, &Error{Code: Failed}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", answer, err)
		}
		l.Close()
		<-over
	}
}
