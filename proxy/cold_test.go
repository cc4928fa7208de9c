package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spread makes clients connect until the kernel has put some in every queue of a
// group that nobody steers yet. Each sends its number.
func spread(t *testing.T, addr *net.TCPAddr, fds []int) (clients []net.Conn) {
	t.Helper()
	for full := false; !full; {
		c := dialTo(t, addr)
		fmt.Fprintf(c, "%03d", len(clients))
		clients = append(clients, c)
		full = true
		for _, fd := range fds {
			n, _, err := queueOf(fd)
			if err != nil {
				t.Fatal(err)
			}
			full = full && n > 0
		}
	}
	return clients
}

// Clients that came before any proxyd wait in all queues. The first generation
// gets a member all the same, and none of them before it is switched to; then
// each is answered by it.
func TestTheFirstGenerationGetsAMemberWhereClientsWait(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 5, false)
	clients := spread(t, addr, fds)
	p, d := newDirect(t, addr, fds)
	first := mustLend(t, d, 1)
	if n, err := d.Waiting(1, "web"); n != 0 || err != nil {
		t.Fatalf("%d clients wait for a generation that is not proven ready, %v", n, err)
	}
	if _, _, err := d.Lend(context.Background(), 2); err != nil {
		t.Errorf("a second before the first serves: %v", err)
	}
	if got := len(landed(t, []int{first})); got != 0 {
		t.Fatalf("%d clients came to a generation that is not proven ready", got)
	}
	serveDirect(t, p, d, 1)
	seen := map[string]bool{}
	for range clients {
		fd := acceptFrom(t, first)
		var b [3]byte
		eventually(t, "its number", func() bool { n, _ := unix.Read(fd, b[:]); return n == 3 })
		seen[string(b[:])] = true
		if _, err := unix.Write(fd, b[:]); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	for i, c := range clients {
		if got := want(c, fmt.Appendf(nil, "%03d", i)); got != "3 bytes" {
			t.Errorf("client %d of %d: %s", i, len(clients), got)
		}
	}
	if len(seen) != len(clients) {
		t.Errorf("%d of %d clients were served", len(seen), len(clients))
	}
}

// serveDirect steers to a generation and gives it the relay's route.
func serveDirect(t *testing.T, p *Proxy, d *Direct, generation uint64) *Route {
	t.Helper()
	if err := d.Steer(generation); err != nil {
		t.Fatal(err)
	}
	r, err := p.NewRoute(generation, map[string]net.Addr{"web": d.Reach("web")})
	if err != nil {
		t.Fatal(err)
	}
	r.KeepOrder()
	p.Switch(r)
	return r
}

// A handshake that began before any proxyd, and does not end, keeps the first
// generation from a member for a second at most: there is nobody else to answer
// it. One that is staged beside another is lent none.
func TestHandshakesFromBefore(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	for _, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
	}
	client := dialTo(t, addr)
	_, d := newDirect(t, addr, fds)
	if mustLend(t, d, 1); d.members[1].generation != 1 {
		t.Error("generation 1 has another member")
	}
	if _, _, err := d.Lend(context.Background(), 2); !errors.Is(err, ErrNoMember) {
		t.Errorf("the second: %v", err)
	}
	client.Close()
	eventually(t, "the member to be lent", func() bool {
		_, _, err := d.Lend(context.Background(), 2)
		return err == nil
	})
}

// A new Direct does not know which member its predecessor steered to a moment
// ago. So a handshake that is under way keeps what is nobody's from being lent
// beside a generation that serves.
func TestHandshakesFromBeforeARestart(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, before := newDirect(t, addr, fds)
	member, _, err := before.Lend(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	mustLend(t, before, 2)
	for _, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.Steer(2); err != nil {
		t.Fatal(err)
	}
	client := dialTo(t, addr) // it was begun for generation 2, which is gone now
	p, d := newDirect(t, addr, fds)
	if _, err := d.Keep(1, member); err != nil {
		t.Fatal(err)
	}
	serveDirect(t, p, d, 1)
	if _, _, err := d.Lend(context.Background(), 3); !errors.Is(err, ErrNoMember) {
		t.Fatalf("a member that a handshake is under way to: %v", err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	unix.Close(acceptFrom(t, fds[member])) // relayed to who serves
	eventually(t, "the member to be lent", func() bool {
		_, _, err := d.Lend(context.Background(), 3)
		return err == nil
	})
}

// A relay that ends before it ever had a route waits for nobody: who was taken out
// of a queue can be served by it no more.
func TestWhoWaitsAtAColdStartKeepsNoProxyFromItsEnd(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	spread(t, addr, fds)
	p, d := newDirect(t, addr, fds)
	mustLend(t, d, 1)
	if p.live.Load() == 0 {
		t.Fatal("nobody was taken out of a queue")
	}
	p.Seal()
	select {
	case <-p.Empty():
	case <-time.After(patience):
		t.Fatal("it waits for clients that nobody serves")
	}
}
