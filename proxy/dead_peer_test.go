package proxy

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenPlain is listenOn for TCP without Multipath TCP, which has neither
// filters nor TCP_USER_TIMEOUT.
func listenPlain(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// vanish makes an end as silent as one whose machine lost its power: a filter
// of one instruction drops every packet that comes for it (socket(7),
// SO_ATTACH_FILTER), so that nothing is acknowledged any more.
func vanish(t *testing.T, c duplex) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	prog := unix.SockFprog{Len: 1, Filter: &drop}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// A peer that vanished is given up: by keepalive while nothing is on its way to
// it, by TCP_USER_TIMEOUT while something is; a client as well as a backend
// that is not on this machine. The other side never takes that for an end in
// order.
func TestDeadPeers(t *testing.T) {
	for _, x := range []struct {
		name    string
		cfg     Config
		backend bool // it is the backend that vanishes
		sends   bool // something is on its way to it
	}{
		{"client, keepalive", Config{KeepAlive: time.Second}, false, false},
		{"client, TCP_USER_TIMEOUT", Config{KeepAlive: -1, UserTimeout: 300 * time.Millisecond}, false, true},
		{"backend, keepalive", Config{KeepAlive: time.Second}, true, false},
		{"backend, TCP_USER_TIMEOUT", Config{KeepAlive: -1, UserTimeout: 300 * time.Millisecond}, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			front, back := listenPlain(t), listenPlain(t)
			x.cfg.Loops, x.cfg.Listeners = 1, []Listener{{Name: "web", FD: descriptorOf(t, front)}}
			p, err := New(x.cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			r, err := p.NewRoute(1, map[string]net.Addr{"web": back.Addr()})
			if err != nil {
				t.Fatal(err)
			}
			r.dests[0].remote = true // as an address that is not a loopback's
			p.Switch(r)
			dead, alive := dial(t, front), take(t, back)
			if x.backend {
				dead, alive = alive, dead
			}
			feed(alive, []byte("hello"))
			if got := want(dead, []byte("hello")); got != "5 bytes" {
				t.Fatal(got)
			}
			vanish(t, dead)
			if x.sends {
				feed(alive, []byte("is anybody there"))
			}
			if _, err := alive.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the living end saw %v, want a reset", err)
			}
			eventually(t, "nothing is in flight", func() bool { return r.Counts().InFlight == 0 })
		})
	}
}
