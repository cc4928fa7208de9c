package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 64 << 10  // one read of small messages, and the mark of a stream
	streamSize = 256 << 10 // one read of a stream that is copied
	spliceSize = 1 << 20   // a pipe, one splice, and so what can be stuck in a lent pipe
	fewBytes   = 8 << 10   // a read or a splice of less than this is no stream any more
	maxTurns   = 16        // reads of one direction before others get their turn
)

// pump carries bytes and endings between the two sides of connections. It
// knows no epoll, no listener and no route: what it needs of the kernel is
// behind sys, and what it needs of time is now.
//
// The rule that edge-triggered events rest on: when the pump lets go of a
// connection, each direction has nothing to read, or is stuck behind a side
// that epoll reports as soon as it takes more, or is in again or postponed, or
// has a timer.
type pump struct {
	sys    kernel
	slab   slab
	buf    []byte
	big    []byte // for streams that are copied; nil before the first
	now    int64  // nanoseconds, set once a turn
	tick   uint32 // milliseconds, set once a turn where idle connections end
	timers timers
	upload bool // a stream went to a backend
	postponed
	again []key // connections that had more to do when their turn was over
	store

	moved   [2]uint64   // bytes read by side since the loop last took them
	ended   func(*conn) // told before a record is given back
	settled func(*conn) // told after a postponed write, unless it is nil
}

func newPump(sys kernel) pump {
	return pump{sys: sys, slab: newSlab(), buf: make([]byte, bufferSize), store: newStore(sys)}
}

// happened takes what epoll reported of one side and does what it allows.
func (p *pump) happened(c *conn, at int, events uint32) {
	p.catchUp(c)
	s := &c.side[at]
	s.note(events)
	if c.state != relaying {
		return
	}
	if s.is(readable) {
		p.move(c, at)
	}
	if o := &c.side[1-at]; o.held >= 0 && !s.is(blocked) {
		p.move(c, 1-at)
	}
	p.settle(c)
}

// note turns reported events into flags.
func (s *side) note(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 && !s.is(ended) {
		s.flags |= readable
	}
	if events&unix.EPOLLRDHUP != 0 {
		s.flags |= fin
	}
	if events&(unix.EPOLLERR|unix.EPOLLPRI) != 0 || events&unix.EPOLLHUP != 0 && s.is(isTCP) {
		s.flags |= exhaust // and fin proves nothing
	}
	if events&unix.EPOLLPRI != 0 {
		s.flags |= plain // a splice would stand still in front of urgent data
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.flags &^= blocked
	}
	if events&unix.EPOLLHUP != 0 && !s.is(isTCP) {
		s.flags |= gone
	}
	if events&unix.EPOLLERR != 0 && s.is(ended) {
		s.flags |= failed // a reset that came after the end of its stream
	}
}

// proceed does everything that a connection allows now, in both directions.
func (p *pump) proceed(c *conn) {
	p.catchUp(c)
	p.move(c, client)
	p.move(c, backend)
	p.settle(c)
}

// move carries bytes of one direction until nothing is left to read, the other
// side takes no more, or it is the turn of others.
func (p *pump) move(c *conn, from int) {
	src, dst := &c.side[from], &c.side[1-from]
	for turn := 0; ; turn++ {
		if src.held >= 0 && !p.flush(c, from) {
			return
		}
		if src.flags&(readable|ended) != readable {
			return
		}
		if turn >= maxTurns {
			p.later(c)
			return
		}
		if p.splices(src, dst) && p.spliced(c, from) {
			turn += maxTurns/4 - 1 // it moves more than a read
			continue
		}
		b := p.room(src)
		n, errno := p.sys.recv(src.fd, b)
		switch {
		case errno == 0 && n > 0:
			p.moved[from] += uint64(n)
			c.active = p.tick
			if n == len(b) || n >= bufferSize {
				src.flags |= stream
			} else if n < fewBytes {
				src.flags &^= stream
			}
			if n < len(b) && !src.is(exhaust) {
				src.flags &^= readable // epoll(7): a short read of a stream is its end for now
				if src.is(fin) {
					src.flags |= ended // and for good: saves a read that gives 0
				}
			}
			if src.is(stream) {
				p.unpace(dst, from)
			}
			switch {
			case dst.is(failed):
			case p.postpone(c, from, b[:n]):
				return
			default:
				p.write(c, from, b[:n])
			}
		case p.over(c, from, errno):
			return
		}
	}
}

// over takes a read that gave no bytes; false means try again.
func (p *pump) over(c *conn, from int, errno syscall.Errno) bool {
	src := &c.side[from]
	switch errno {
	case 0:
		src.flags = src.flags&^readable | ended
	case unix.EAGAIN:
		src.flags &^= readable
	case unix.EINTR:
		return false
	case unix.ENOMEM, unix.ENOBUFS:
		p.timers.add(timer{p.now + noMemory, c.key(0), moveAgain})
	default:
		src.flags = src.flags&^readable | ended | failed
	}
	return true
}

// write gives b to the other side; what it does not take now is held.
func (p *pump) write(c *conn, from int, b []byte) {
	dst := &c.side[1-from]
	p.undelay(dst)
	n, errno := p.sys.send(dst.fd, b, p.lastOf(c, from))
	p.wrote(c, from, b, n, errno)
}

// lastOf tells whether what is written now are the last bytes of their stream.
// They share a packet with its end, which settle sends right after them.
func (p *pump) lastOf(c *conn, from int) bool {
	return c.side[from].is(ended) && c.side[1-from].is(isTCP)
}

// wrote takes what a first try to send b gave, n or errno, and does the rest.
func (p *pump) wrote(c *conn, from int, b []byte, n int, errno syscall.Errno) {
	for errno == unix.EINTR {
		n, errno = p.sys.send(c.side[1-from].fd, b, p.lastOf(c, from))
	}
	if errno == 0 {
		if n == len(b) {
			return
		}
		// epoll(7): a short write means full, and an edge will follow.
		b = b[n:]
		errno = unix.EAGAIN
	}
	if p.refused(c, 1-from, errno) {
		p.hold(&c.side[from], b)
	}
}

// undelay turns the Nagle algorithm off before the second write to a socket
// that did not inherit that. The first is sent at once either way, and a
// connection that carries one request needs no more.
func (p *pump) undelay(s *side) {
	if !s.is(nagle) {
		return
	}
	if !s.is(written) {
		s.flags |= written
		return
	}
	s.flags &^= nagle
	p.sys.nodelay(s.fd)
}

// refused takes an error of a write: true if the bytes have to wait.
func (p *pump) refused(c *conn, at int, errno syscall.Errno) bool {
	s := &c.side[at]
	switch errno {
	case unix.EAGAIN:
		s.flags |= blocked
		if !s.is(armed) {
			s.flags |= armed
			p.sys.arm(s.fd, c.key(at))
		}
		return true
	case unix.ENOMEM, unix.ENOBUFS:
		p.timers.add(timer{p.now + noMemory, c.key(0), moveAgain})
		return true
	}
	// This write may have taken the only sign of a reset: a later read then
	// shows a plain end of stream. What came before it can still be read.
	s.flags |= failed | exhaust
	if !s.is(ended) {
		s.flags |= readable
	}
	return false
}

// flush writes what is held of a direction; true if nothing is held any more.
func (p *pump) flush(c *conn, from int) bool {
	src, dst := &c.side[from], &c.side[1-from]
	l := &p.lends[src.held]
	p.undelay(dst)
	for !dst.is(failed) {
		if dst.is(blocked) {
			return false
		}
		n, errno := 0, syscall.Errno(0)
		if l.buf != nil {
			n, errno = p.sys.send(dst.fd, l.buf[l.off:l.off+l.n], false)
		} else {
			n, errno = p.sys.splice(l.pipe.r, dst.fd, l.n)
		}
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			if p.refused(c, 1-from, errno) {
				return false
			}
			break
		}
		c.active = p.tick
		if n == 0 { // cannot be; it must not spin
			p.refused(c, 1-from, unix.EIO)
			break
		}
		l.off += n
		l.n -= n
		if l.n == 0 {
			break
		}
	}
	p.release(src)
	return true
}

// later puts a connection behind the others of this turn.
func (p *pump) later(c *conn) {
	if !c.queued {
		c.queued = true
		p.again = append(p.again, c.key(0))
	}
}
