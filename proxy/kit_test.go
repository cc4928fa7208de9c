package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience ends a test that hangs; no test waits for it when all is well.
const patience = 60 * time.Second

// duplex is what both net.TCPConn and net.UnixConn are.
type duplex interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
	SyscallConn() (syscall.RawConn, error)
}

// listenOn opens a listener of a network on a place of its own.
func listenOn(t testing.TB, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "px")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		addr = filepath.Join(dir, "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// descriptorOf duplicates a listener's descriptor, as a borrower gets it.
func descriptorOf(t testing.TB, ln net.Listener) int {
	t.Helper()
	raw, err := ln.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// front is a proxy with one listener named "web".
type front struct {
	*Proxy
	ln net.Listener
}

func newFront(t testing.TB, network string, cfg Config) front {
	t.Helper()
	ln := listenOn(t, network)
	cfg.Listeners = []Listener{{Name: "web", FD: descriptorOf(t, ln)}}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return front{p, ln}
}

func (f front) to(t testing.TB, generation uint64, addr net.Addr) *Route {
	t.Helper()
	r, err := f.NewRoute(generation, map[string]net.Addr{"web": addr})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func dial(t testing.TB, ln net.Listener) duplex {
	t.Helper()
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return ready(t, c)
}

func take(t testing.TB, ln net.Listener) duplex {
	t.Helper()
	ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(patience))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return ready(t, c)
}

func ready(t testing.TB, c net.Conn) duplex {
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c.(duplex)
}

// eventually waits for what another goroutine will make true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

// pattern is n bytes that repeat nowhere.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// ending names what a read or a write ended with.
func ending(err error) string {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return "reset"
	}
	return err.Error()
}

// drain reads to the end and tells what came.
func drain(c io.Reader) string {
	sum := crc32.NewIEEE()
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{c}, make([]byte, 128<<10))
	return fmt.Sprintf("%d bytes %08x, %s", n, sum.Sum32(), ending(err))
}

// want reads exactly b.
func want(c io.Reader, b []byte) string {
	got := make([]byte, len(b))
	n, err := io.ReadFull(c, got)
	if err != nil {
		return fmt.Sprintf("%d of %d bytes, %s", n, len(b), ending(err))
	}
	if !bytes.Equal(got, b) {
		return fmt.Sprintf("%d other bytes", len(b))
	}
	return fmt.Sprintf("%d bytes", len(b))
}

// feed writes b.
func feed(c io.Writer, b []byte) string {
	if _, err := c.Write(b); err != nil {
		return "write: " + ending(err)
	}
	return "written"
}

// arrived waits until a byte is there, and leaves it.
func arrived(t testing.TB, c duplex) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	}); err != nil {
		t.Fatal(err)
	}
}

// reset ends c so that its peer sees ECONNRESET: by SO_LINGER for TCP; a unix
// socket says so when it is closed with something unread.
func reset(t testing.TB, c duplex) {
	t.Helper()
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	} else {
		arrived(t, c)
	}
	c.Close()
}

// both runs two ends at once.
func both(a, b func()) {
	var wg sync.WaitGroup
	wg.Go(a)
	b()
	wg.Wait()
}
