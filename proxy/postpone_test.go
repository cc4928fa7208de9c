package proxy

import (
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
