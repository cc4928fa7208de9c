package proxy

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// twoSides is a pump with one relayed connection between two fake sockets.
func twoSides(k *fake) (p pump, c *conn, socks [2]*fakeSocket) {
	p = newPump(k)
	p.ended = func(*conn) {}
	c = p.slab.take()
	c.state = relaying
	for i := range socks {
		fd := k.fd()
		socks[i] = &fakeSocket{tcp: true, room: 1000}
		k.sockets[fd] = socks[i]
		c.side[i].fd, c.side[i].flags = fd, isTCP
	}
	return p, c, socks
}

func undisturbed(n int) int { return n - 1 }

// A small message waits for the end of the turn, and no longer than for the
// next event of its connection.
func TestPostponed(t *testing.T) {
	k := newFake(undisturbed)
	p, c, socks := twoSides(k)
	socks[client].peerSends([]byte("one"))
	p.happened(c, client, unix.EPOLLIN)
	if got := string(socks[backend].out); got != "" {
		t.Fatalf("written at once: %q", got)
	}
	socks[client].peerSends([]byte("two"))
	p.happened(c, client, unix.EPOLLIN)
	if got := string(socks[backend].out); got != "one" {
		t.Fatalf("before the second message: %q", got)
	}
	p.deliver()
	if got := string(socks[backend].out); got != "onetwo" {
		t.Fatalf("after the turn: %q", got)
	}
	if c.late != 0 || len(p.writes) != 0 || len(p.bytes) != 0 {
		t.Fatalf("left over: %d, %d writes, %d bytes", c.late, len(p.writes), len(p.bytes))
	}
}

// What a socket takes only in part at the end of the turn follows as soon as it
// takes more.
func TestPostponedAndTakenInPart(t *testing.T) {
	k := newFake(undisturbed)
	p, c, socks := twoSides(k)
	socks[backend].room = 2
	socks[client].peerSends([]byte("one"))
	p.happened(c, client, unix.EPOLLIN)
	p.deliver()
	if got := string(socks[backend].out); got != "on" {
		t.Fatalf("after the turn: %q", got)
	}
	socks[backend].peerReads(1000)
	p.happened(c, backend, socks[backend].edges)
	p.deliver()
	if got := string(socks[backend].out); got != "one" {
		t.Fatalf("when there was room again: %q", got)
	}
}

// A message for one that is gone by the end of the turn ends the connection then:
// no event may follow.
func TestPostponedForOneThatIsGone(t *testing.T) {
	k := newFake(undisturbed)
	p, c, socks := twoSides(k)
	socks[client].peerSends([]byte("one"))
	p.happened(c, client, unix.EPOLLIN)
	socks[backend].peerResets()
	p.deliver()
	if socks[client].outEnd != rst || !socks[backend].closed {
		t.Errorf("the client was shown %d, and the backend's socket is closed: %t", socks[client].outEnd, socks[backend].closed)
	}
}

// counting counts system calls.
type counting struct {
	kernel
	calls int
}

func (k *counting) recv(fd int32, b []byte) (int, syscall.Errno) {
	k.calls++
	return k.kernel.recv(fd, b)
}

func (k *counting) send(fd int32, b []byte, more bool) (int, syscall.Errno) {
	k.calls++
	return k.kernel.send(fd, b, more)
}

func (k *counting) sendAll(writes []write, bytes []byte) {
	k.calls++
	k.kernel.sendAll(writes, bytes)
}

func (k *counting) arm(fd int32, key key) {
	k.calls++
	k.kernel.arm(fd, key)
}

// A message costs a read, and a call for all that were read in its turn, and
// nothing is allocated for it.
func TestWhatAMessageCosts(t *testing.T) {
	const n = 20
	k := &counting{kernel: &linux{epoll: -1, ring: needRing(t), many: manyAtOnce}}
	defer k.kernel.(*linux).closeRing()
	p := newPump(k)
	p.ended = func(*conn) {}
	clients, backends := pairs(t, n), pairs(t, n)
	var conns []*conn
	for i := range n {
		c := p.slab.take()
		c.state = relaying
		c.side[client].fd, c.side[backend].fd = int32(clients[i][0]), int32(backends[i][0])
		conns = append(conns, c)
	}
	text, got := make([]byte, 1000), make([]byte, 2000)
	turn := func() {
		for i, c := range conns {
			unix.Write(clients[i][1], text)
			p.happened(c, client, unix.EPOLLIN)
		}
		p.deliver()
		for i := range conns {
			if m, err := unix.Read(backends[i][1], got); m != len(text) {
				t.Fatalf("message %d: %d bytes came (%v)", i, m, err)
			}
		}
	}
	turn() // the first makes room
	k.calls = 0
	turn()
	if k.calls != n+1 {
		t.Errorf("%d messages cost %d calls, want %d", n, k.calls, n+1)
	}
	if a := testing.AllocsPerRun(10, turn); a > 0 {
		t.Errorf("%d messages cost %v allocations", n, a)
	}
}

// A message is given before the reset that came after it, also where a write
// the other way meets that reset in the same turn.
func TestPostponedBeforeAReset(t *testing.T) {
	k := newFake(func(n int) int {
		if n == 30 {
			return 0 // the client resets right after it was read
		}
		return n - 1
	})
	p, c, socks := twoSides(k)
	p.hold(&c.side[backend], []byte("for the client"))
	socks[client].peerSends([]byte("last words"))
	p.happened(c, client, unix.EPOLLIN|unix.EPOLLOUT)
	socks[backend].unacked = 0
	for x, ok := p.timers.due(1 << 40); ok; x, ok = p.timers.due(1 << 40) {
		p.pollAgain(c, int(x.key.ref&1))
	}
	p.deliver()
	if got := string(socks[backend].out); got != "last words" || socks[backend].outEnd != rst {
		t.Fatalf("the backend was given %q and ending %d", got, socks[backend].outEnd)
	}
}

// What waits for a connection that is gone goes nowhere.
func TestPostponedForNobody(t *testing.T) {
	k := newFake(undisturbed)
	p, c, socks := twoSides(k)
	socks[client].peerSends([]byte("late"))
	p.happened(c, client, unix.EPOLLIN)
	p.abort(c)
	next := p.slab.take()
	next.state = relaying
	p.deliver()
	if got := string(socks[backend].out); got != "" || next.index != c.index {
		t.Fatalf("written after the end: %q", got)
	}
}
