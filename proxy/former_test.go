package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// heldFrom is what a generation holds of a group of which all else has gone.
type heldFrom struct {
	generation uint64
	member     int
	fd         int
	address    *net.TCPAddr
	accepted   int // the first client's
	clients    []net.Conn
}

// groupOfBefore makes a group, lends members of it to two generations, each with a
// client that it accepted and two in its queue, and ends all else of it.
func groupOfBefore(t *testing.T) (addr *net.TCPAddr, held []*heldFrom) {
	t.Helper()
	addr, fds := membersAt(t, "127.0.0.1", 5, false)
	var listeners []Listener
	for i, fd := range fds {
		listeners = append(listeners, Listener{Name: "web", FD: fd, Member: i > 0})
	}
	p, err := New(Config{Listeners: listeners})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d, err := NewDirect(DirectConfig{Groups: []Group{{"web", addr, fds}}, Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	left := map[int]bool{}
	for generation := range uint64(2) {
		generation++
		member, lent, err := d.Lend(t.Context(), generation)
		if err != nil {
			t.Fatal(err)
		}
		h := &heldFrom{generation: generation, member: member, fd: lent[0], address: addr}
		if err := d.Steer(generation); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			h.clients = append(h.clients, dialTo(t, addr))
		}
		h.accepted = acceptFrom(t, h.fd)
		held = append(held, h)
		left[h.fd] = true
	}
	d.Close() // else they would listen again
	for _, fd := range fds {
		if !left[fd] {
			if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil { // which ends its listening, as close(2) does
				t.Fatal(err)
			}
		}
	}
	return addr, held
}

func (h *heldFrom) former(t *testing.T) *Former {
	t.Helper()
	f, err := NewFormer(h.generation, h.member, []*net.TCPAddr{h.address}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func wantFormer(t *testing.T, f *Former, want uint64) {
	t.Helper()
	if err, n := f.Count(), f.InFlight(); err != nil || n != want {
		t.Fatalf("%d in flight, not %d (%v)", n, want, err)
	}
}

// What a generation has of a group that is no more is counted, and it has drained
// when that is over: what it accepted, and what waits in its queue.
func TestAFormerMemberIsCountedToItsEnd(t *testing.T) {
	addr, held := groupOfBefore(t)
	h := held[0]
	f, other := h.former(t), held[1].former(t)
	wantFormer(t, other, 3)
	wantFormer(t, other, 3)
	wantFormer(t, f, 3)
	drained := f.Drained()
	wantFormer(t, f, 3)
	for range 4 { // who comes after the first looks does not count
		held[1].clients = append(held[1].clients, dialTo(t, addr))
		wantFormer(t, f, 3)
	}
	for _, c := range h.clients[:2] {
		c.Close()
	}
	for range 2 {
		unix.Close(acceptFrom(t, h.fd))
	}
	h.clients[2].Close()
	wantFormer(t, f, 1) // which its process has accepted and not closed
	select {
	case <-drained:
		t.Fatal("drained while a connection is open")
	default:
	}
	if err := unix.Shutdown(h.fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	wantFormer(t, f, 1)
	unix.Close(h.accepted)
	<-drained
	wantFormer(t, other, 3) // which it is no part of
	unix.Close(held[1].accepted)
}

// Beside sockets of before, all new connections come to ours, also once the others
// are closed; and what the others have is told from what is ours.
func TestNewConnectionsAreKeptApartFromSocketsOfBefore(t *testing.T) {
	addr, held := groupOfBefore(t)
	var ours []int
	for range 3 {
		ours = append(ours, memberAt(t, addr, false))
	}
	groups := []Group{{"web", addr, ours}}
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: ours[0]}, {Name: "web", FD: ours[1], Member: true}, {Name: "web", FD: ours[2], Member: true}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if d, err := NewDirect(DirectConfig{Groups: groups, Proxy: p}); err == nil {
		d.Close()
		t.Fatal("it is steered as if nobody else were there")
	}
	if err := Apart(groups); err != nil {
		t.Fatal(err)
	}
	comeToUs := func(what string) {
		t.Helper()
		for i := range 50 {
			dialTo(t, addr)
			if at := landed(t, ours); len(at) != 1 {
				t.Fatalf("%s: client %d came to %v of ours", what, i, at)
			}
		}
	}
	landed(t, ours) // what was tried
	formers := []*Former{held[0].former(t), held[1].former(t)}
	comeToUs("beside two")
	for i, f := range formers {
		wantFormer(t, f, 4) // with what was tried, which waits as nobody accepts there
		if err := unix.Shutdown(held[i].fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		comeToUs("after one has closed")
		unix.Close(held[i].accepted)
	}
}
