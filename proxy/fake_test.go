package proxy

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// fake is a kernel in which sockets are two queues each, and every call may be
// interrupted, take or give less than asked, or find nothing: whatever a real
// one may do, as the schedule draws it. It reports edges as epoll does.
type fake struct {
	draw    func(n int) int // 0..n-1
	sockets map[int32]*fakeSocket
	pipes   map[int32]*fakePipe
	next    int32
	noPipes bool
}

type fakeSocket struct {
	tcp      bool
	in       []byte // what the peer sent and nobody has read
	inEnd    end    // what follows it
	err      syscall.Errno
	out      []byte // what was sent to the peer
	room     int    // how much more it takes
	unacked  int
	outEnd   end // what the peer was shown after out
	ackedAt  int // unacked when it was reset
	closed   bool
	full     bool // a write found no room: the next room is an edge
	outEdges bool
	edges    uint32
	vanished bool // reset by the peer: writes fail
}

type end uint8

const (
	open end = iota
	eof
	rst
)

type fakePipe struct {
	b     []byte
	slots int
}

func newFake(draw func(int) int) *fake {
	return &fake{draw: draw, sockets: map[int32]*fakeSocket{}, pipes: map[int32]*fakePipe{}, next: 10}
}

func (k *fake) fd() int32 { k.next++; return k.next }

func (k *fake) socket(fd int32) *fakeSocket {
	s := k.sockets[fd]
	if s == nil || s.closed {
		panic(fmt.Sprintf("descriptor %d used after it was closed", fd))
	}
	return s
}

// some is how much of n a call does.
func (k *fake) some(n int) int {
	if n > 1 && k.draw(3) == 0 {
		return 1 + k.draw(n)
	}
	return n
}

func (k *fake) recv(fd int32, b []byte) (int, syscall.Errno) {
	if k.draw(8) == 0 {
		return -1, unix.EINTR
	}
	s := k.socket(fd)
	if len(s.in) == 0 {
		return s.nothing()
	}
	// A stream socket gives all it has, up to what is asked for.
	n := copy(b, s.in)
	s.in = s.in[n:]
	if s.tcp && s.inEnd == open && k.draw(30) == 0 {
		s.peerResets() // while the turn goes on, and before its event is seen
	}
	return n, 0
}

// nothing is what a read gives when all was read.
func (s *fakeSocket) nothing() (int, syscall.Errno) {
	switch {
	case s.err != 0: // reported once
		e := s.err
		s.err = 0
		return -1, e
	case s.inEnd == open && !s.vanished:
		return -1, unix.EAGAIN
	}
	return 0, 0 // the end, also when the error was taken by another call
}

func (k *fake) send(fd int32, b []byte, more bool) (int, syscall.Errno) {
	if k.draw(8) == 0 {
		return -1, unix.EINTR
	}
	if k.draw(12) == 0 {
		return -1, unix.ENOBUFS
	}
	s := k.socket(fd)
	n, e := s.accept(len(b))
	if e == 0 {
		s.out = append(s.out, b[:n]...)
		s.unacked += n
	}
	return n, e
}

func (k *fake) sendAll(writes []write, bytes []byte) {
	for i := range writes {
		if w := &writes[i]; w.fd >= 0 {
			n, e := k.send(w.fd, bytes[w.at:w.at+w.size], false)
			if w.sent = int32(n); e != 0 {
				w.sent = -int32(e)
			}
		}
	}
}

func (s *fakeSocket) accept(n int) (int, syscall.Errno) {
	if s.outEnd != open {
		panic("written after the end of the stream")
	}
	if s.vanished {
		if s.err != 0 {
			s.err = 0
			return -1, unix.ECONNRESET
		}
		return -1, unix.EPIPE
	}
	if n > s.room {
		s.full = true
		n = s.room
	}
	if n == 0 {
		return -1, unix.EAGAIN
	}
	s.room -= n
	return n, 0
}

func (k *fake) splice(from, to int32, n int) (int, syscall.Errno) {
	if k.draw(8) == 0 {
		return -1, unix.EINTR
	}
	if p := k.pipes[to]; p != nil {
		s := k.socket(from)
		if len(p.b) != 0 {
			panic("a pipe with stuck bytes was used for others")
		}
		if len(s.in) == 0 {
			return s.nothing()
		}
		n = min(k.some(n), len(s.in), p.slots*4096)
		p.b = append(p.b, s.in[:n]...)
		s.in = s.in[n:]
		return n, 0
	}
	p, s := k.pipes[from], k.socket(to)
	if len(p.b) < n {
		panic("more is asked of a pipe than is in it")
	}
	m, e := s.accept(k.some(n))
	if e == 0 {
		s.out = append(s.out, p.b[:m]...)
		s.unacked += m
		p.b = p.b[m:]
	}
	return m, e
}

func (k *fake) openPipe() (pipe, syscall.Errno) {
	if k.noPipes || k.draw(10) == 0 {
		return pipe{-1, -1}, unix.EMFILE
	}
	f := &fakePipe{slots: []int{2, 16, 256}[k.draw(3)]}
	p := pipe{k.fd(), k.fd()}
	k.pipes[p.r], k.pipes[p.w] = f, f
	return p, 0
}

func (k *fake) drain(fd int32, b []byte) (int, syscall.Errno) {
	p := k.pipes[fd]
	n := copy(b[:k.some(len(b))], p.b)
	p.b = p.b[n:]
	return n, 0
}

func (k *fake) closePipe(p pipe) {
	if k.pipes[p.r] == nil {
		panic("a pipe was closed twice")
	}
	delete(k.pipes, p.r)
	delete(k.pipes, p.w)
}

func (k *fake) arm(fd int32, _ key) {
	s := k.socket(fd)
	s.outEdges = true
	if s.room > 0 || s.vanished {
		s.edges |= unix.EPOLLOUT
	}
}

func (k *fake) nodelay(fd int32) { k.socket(fd) }

func (k *fake) unpace(fd int32) { k.socket(fd) }

func (k *fake) finish(fd int32) syscall.Errno {
	s := k.socket(fd)
	if s.outEnd != open {
		panic("ended twice")
	}
	if s.vanished {
		return unix.ENOTCONN
	}
	s.outEnd = eof
	return 0
}

func (k *fake) unsent(fd int32) int { return k.socket(fd).unacked }

func (k *fake) close(fd int32) {
	s := k.socket(fd)
	s.closed = true
	if s.outEnd == open && !s.vanished {
		s.outEnd = eof
		if len(s.in) > 0 {
			s.outEnd = rst
		}
	}
}

func (k *fake) reset(fd int32) {
	s := k.socket(fd)
	s.closed = true
	s.ackedAt = s.unacked
	s.outEnd = rst
}

// What the peer of a socket does.

func (s *fakeSocket) peerSends(b []byte) {
	s.in = append(slices.Clip(s.in), b...)
	s.edges |= unix.EPOLLIN
}

func (s *fakeSocket) peerEnds() {
	s.inEnd = eof
	s.edges |= unix.EPOLLIN | unix.EPOLLRDHUP
}

func (s *fakeSocket) peerResets() {
	s.inEnd, s.vanished, s.err = rst, true, unix.ECONNRESET
	s.unacked = 0
	s.edges |= unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if s.outEdges {
		s.edges |= unix.EPOLLOUT
	}
}

// peerReads makes room; a writer that was refused hears of it.
func (s *fakeSocket) peerReads(n int) {
	s.room += n
	s.unacked = 0
	if s.full && s.outEdges && s.room > 0 {
		s.full = false
		s.edges |= unix.EPOLLOUT
	}
}
