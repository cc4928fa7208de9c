package proxy

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Clients of a dead generation's queue wait on while the current one's is full,
// however long: as they would on a direct connection.
func TestWhatWaitsForAFullQueueIsNotGivenUp(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	cfg := Config{ConnectTimeout: 50 * time.Millisecond}
	p, d := newDirectWith(t, addr, fds, cfg)
	mustLend(t, d, 1)
	second := mustLend(t, d, 2)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 20 {
		clients = append(clients, dialTo(t, addr))
	}
	if err := unix.Listen(second, 4); err != nil { // a smaller queue, and nothing else
		t.Fatal(err)
	}
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	r, err := p.NewRoute(2, map[string]net.Addr{"web": d.Reach("web")})
	if err != nil {
		t.Fatal(err)
	}
	r.KeepOrder()
	p.Switch(r)
	d.Return(1)
	eventually(t, "every client to be the relay's", func() bool { return r.Counts().InFlight == 20 })
	// A client that is relayed to an address where nobody listens, and came later,
	// is given up at last: so much time has passed.
	other := newFront(t, "tcp", cfg)
	nobody := listenOn(t, "unix")
	nobody.Close()
	lost, err := other.NewRoute(1, map[string]net.Addr{"web": nobody.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	other.Switch(lost)
	if _, err := dialTo(t, other.ln.Addr()).Read(make([]byte, 1)); err == nil {
		t.Fatal("an answer of nobody")
	}
	if c := r.Counts(); c.ConnectFailures != 0 || c.InFlight != 20 {
		t.Fatalf("%d were given up, %d wait", c.ConnectFailures, c.InFlight)
	}
	answered := make(chan error, 1)
	go func() { // ends with the last answer, or what came in its place; waited for below
		for _, c := range clients {
			var b [1]byte
			if _, err := c.Read(b[:]); err != nil || b[0] != '2' {
				answered <- fmt.Errorf("a client that waited got %q, %w", b[:], err)
				return
			}
		}
		answered <- nil
	}()
	eventually(t, "every client to be answered", func() bool {
		if fd, _, err := unix.Accept4(second, unix.SOCK_CLOEXEC); err == nil {
			_, _ = unix.Write(fd, []byte("2"))
			unix.Close(fd)
		}
		select {
		case err := <-answered:
			if err != nil {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
}
