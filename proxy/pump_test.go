package proxy

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestPump drives random schedules through the pump: what peers send, read,
// end and reset, what the kernel does partially or not at all, in which order
// events arrive. Whatever happens:
//
//   - what a peer gets is a prefix of what the other one sent;
//   - it is all of it, if the peer reads on and neither was reset early;
//   - an end of stream is shown after all bytes, and only if one was sent;
//   - a reset is shown only after all bytes sent before it were acknowledged;
//   - nothing is stuck for ever, nothing is used after it was closed, and all
//     that was lent comes back.
func TestPump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		runPump(t, schedule(rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "schedule")))
	})
}

// schedule makes as many numbers as are asked for out of a few bytes.
func schedule(b []byte) func(n int) int {
	at, mix := 0, uint32(1)
	return func(n int) int {
		mix = mix*1664525 + 1013904223 + uint32(b[at%len(b)])
		at++
		return int(mix>>8) % n
	}
}

func runPump(t interface {
	Fatalf(string, ...any)
}, draw func(int) int) {
	k := newFake(draw)
	k.noPipes = draw(4) == 0
	p := newPump(k)
	p.maxPipes = draw(3)
	over := false
	p.ended = func(*conn) { over = true }
	c := p.slab.take()
	c.state = relaying
	var socks [2]*fakeSocket
	var sent [2][]byte
	for i := range socks {
		fd := k.fd()
		socks[i] = &fakeSocket{tcp: draw(3) > 0, room: []int{draw(200_000), 4 << 20}[draw(2)]}
		k.sockets[fd] = socks[i]
		c.side[i].fd = fd
		if socks[i].tcp {
			c.side[i].flags = isTCP | nagle
		}
	}
	index, seq := c.index, c.seq

	deliver := func() bool { // one event or one more turn; false: nothing to do
		if len(p.writes) > 0 && draw(2) == 0 { // the turn is over
			p.deliver()
			return true
		}
		if over {
			return false
		}
		for i := range 2 {
			i = (i + draw(2)) % 2
			if e := socks[i].edges; e != 0 {
				socks[i].edges = 0
				p.happened(c, i, e)
				return true
			}
		}
		for i := range 2 {
			if e := socks[i].edges; e != 0 {
				socks[i].edges = 0
				p.happened(c, i, e)
				return true
			}
		}
		if len(p.again) > 0 {
			p.again = p.again[:0]
			c.queued = false
			p.proceed(c)
			return true
		}
		if len(p.timers) > 0 {
			p.now = p.timers[0].at
			x, _ := p.timers.due(p.now)
			if p.slab.find(x.key.ref>>1, x.key.seq) != nil {
				if x.what == pollUnsent {
					p.pollAgain(c, int(x.key.ref&1))
				} else {
					p.proceed(c)
				}
			}
			return true
		}
		if len(p.writes) > 0 {
			p.deliver()
			return true
		}
		return false
	}

	for step := 5 + draw(60); step > 0; step-- {
		s := draw(2)
		if socks[s].inEnd == open && !over {
			switch draw(12) {
			case 0:
				socks[s].peerEnds()
			case 1:
				if draw(3) == 0 {
					socks[s].peerResets()
				}
			case 2, 3, 4, 5:
				size := 1 + draw([]int{10, 3000, 200_000, 10, 3000, 1_800_000}[draw(6)])
				b := pattern(uint64(draw(1<<16)), size)
				sent[s] = append(sent[s], b...)
				socks[s].peerSends(b)
			}
		}
		if draw(2) == 0 {
			socks[s].peerReads(draw(300_000))
		}
		for draw(3) > 0 && deliver() {
		}
	}
	// In the end both read all there is, and end if they have not.
	for i := 0; !over; i++ {
		if i > 100_000 {
			t.Fatalf("never ends: %+v, %+v, %+v", *c, *socks[0], *socks[1])
		}
		if deliver() {
			for _, s := range socks {
				s.unacked = 0
			}
			continue
		}
		if over {
			break
		}
		moved := false
		for _, s := range socks {
			if s.room < 1<<20 && !s.closed {
				s.peerReads(1 << 20)
				moved = moved || s.edges != 0
			}
		}
		if moved {
			continue
		}
		for at, s := range socks {
			if got := socks[1-at].out; !socks[1-at].vanished && len(got) != len(sent[at]) {
				t.Fatalf("%d of %d bytes from side %d, and nothing to wait for: %+v", len(got), len(sent[at]), at, *c)
			}
			if s.inEnd == open {
				s.peerEnds()
				moved = true
				break
			}
		}
		if !moved {
			t.Fatalf("both have ended, and it is kept: %+v", *c)
		}
	}
	for at := range socks {
		src, dst := socks[at], socks[1-at]
		if !bytes.HasPrefix(sent[at], dst.out) {
			t.Fatalf("side %d was given other bytes than were sent", 1-at)
		}
		if !src.closed {
			t.Fatalf("side %d was not closed", at)
		}
		if dst.vanished {
			continue
		}
		if len(dst.out) != len(sent[at]) {
			t.Fatalf("side %d was given %d of %d bytes", 1-at, len(dst.out), len(sent[at]))
		}
		want := eof
		if src.inEnd == rst {
			want = rst
		}
		if dst.tcp && dst.outEnd != want {
			t.Fatalf("side %d was shown ending %d, want %d", 1-at, dst.outEnd, want)
		}
		if dst.ackedAt != 0 {
			t.Fatalf("side %d was reset with %d bytes on their way", 1-at, dst.ackedAt)
		}
	}
	if p.slab.find(index, seq) != nil || p.slab.live != 0 {
		t.Fatalf("the record is still in use")
	}
	if p.held != 0 || p.lentPipe != 0 {
		t.Fatalf("%d bytes and %d pipes still lent", p.held, p.lentPipe)
	}
	p.store.empty()
	if len(k.pipes) != 0 {
		t.Fatalf("%d pipe ends left open", len(k.pipes))
	}
}

// A reset that comes after an end of stream is passed on although nobody
// writes: the other side may wait for ever otherwise.
func TestResetAfterTheEnd(t *testing.T) {
	k := newFake(func(n int) int { return n - 1 })
	p := newPump(k)
	over := false
	p.ended = func(*conn) { over = true }
	c := p.slab.take()
	c.state = relaying
	var socks [2]*fakeSocket
	for i := range socks {
		fd := k.fd()
		socks[i] = &fakeSocket{tcp: true, room: 1000}
		k.sockets[fd] = socks[i]
		c.side[i].fd, c.side[i].flags = fd, isTCP
	}
	socks[client].peerEnds()
	p.happened(c, client, socks[client].edges)
	if socks[backend].outEnd != eof || over {
		t.Fatalf("shown %d, over %v", socks[backend].outEnd, over)
	}
	socks[client].edges = 0
	socks[client].peerResets()
	p.happened(c, client, socks[client].edges)
	if socks[backend].outEnd != rst || !over {
		t.Fatalf("shown %d, over %v", socks[backend].outEnd, over)
	}
}

// FuzzPump is TestPump with schedules that the fuzzer finds.
func FuzzPump(f *testing.F) {
	f.Add([]byte("a schedule of any bytes will do"))
	f.Add([]byte{0, 255, 3, 9, 27, 81, 243, 1, 2, 4, 8, 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 {
			runPump(t, schedule(b))
		}
	})
}
