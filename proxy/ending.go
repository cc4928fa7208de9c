package proxy

import "time"

// noMemory is how long a failed allocation in the kernel is given to pass.
const noMemory = int64(10 * time.Millisecond)

// settle passes endings on. It is called each time that the pump lets go of a
// connection, and does nothing until a side has ended or failed.
//
// A direction is done when its side has ended and nothing of it is held. A
// done direction that ended by the end of its stream shuts the other side's
// receiving down; one that ended by a reset resets the other side, once the
// other side's kernel has acknowledged all that came before. When nothing is
// left to pass on, both are closed.
func (p *pump) settle(c *conn) {
	a, b := &c.side[client], &c.side[backend]
	if (a.flags|b.flags)&(ended|failed) == 0 {
		return
	}
	p.catchUp(c)
	// A failed side is read to its end, and a side whose peer failed is read
	// for nothing, until neither move finds anything new.
	for try := 0; ; try++ {
		was := [2]flags{a.flags, b.flags}
		p.move(c, client)
		p.move(c, backend)
		if was == [2]flags{a.flags, b.flags} {
			break
		}
		if try == 4 { // a stream that goes on; the others wait
			p.later(c)
			return
		}
	}
	for at := range c.side {
		s, o := &c.side[at], &c.side[1-at]
		if !s.is(ended) || s.held >= 0 {
			continue
		}
		otherDone := o.is(ended) && o.held < 0
		switch {
		case s.is(failed):
			p.resetWhenRead(c, 1-at)
			return
		case otherDone && !o.is(failed):
			p.close(c)
			return
		case o.is(failed):
			// The other side is reset: it is read on to its end, and then s is.
		case s.is(gone) && !o.is(readable) && o.held < 0:
			// A unix peer that closed both halves can be given nothing more.
			// Closing now leaves the rest to the kernel, as the peer's own
			// close does on a direct connection: what is still unsent is
			// delivered, then the end; tcp_fin_timeout bounds the rest.
			p.close(c)
			return
		case !o.is(shut):
			o.flags |= shut
			if p.sys.finish(o.fd) != 0 {
				// ENOTCONN: it was reset, and a read will say so.
				o.flags |= failed | exhaust
				if !o.is(ended) {
					o.flags |= readable
				}
				p.later(c)
			}
		}
	}
}

// resetWhenRead resets side at, and ends the connection, once the peer's
// kernel holds all that was sent: a reset throws away what is on its way.
func (p *pump) resetWhenRead(c *conn, at int) {
	s := &c.side[at]
	if s.is(isTCP) && !s.is(failed) && p.sys.unsent(s.fd) > 0 {
		if !c.ending {
			c.ending, c.due = true, int64(time.Millisecond)
			p.timers.add(timer{p.now + c.due, c.key(at), pollUnsent})
		}
		return
	}
	p.abort(c)
}

// pollAgain looks again at a connection that waits to be reset.
func (p *pump) pollAgain(c *conn, at int) {
	if s := &c.side[at]; !s.is(failed) && p.sys.unsent(s.fd) > 0 {
		c.due = min(2*c.due, int64(time.Second))
		p.timers.add(timer{p.now + c.due, c.key(at), pollUnsent})
		return
	}
	p.abort(c)
}

// close ends a connection in order: nothing is unread, so no reset is sent.
func (p *pump) close(c *conn) {
	for at := range c.side {
		if s := &c.side[at]; s.fd >= 0 {
			p.sys.close(s.fd)
		}
	}
	p.forget(c)
}

// abort resets what can be reset and closes the rest.
func (p *pump) abort(c *conn) {
	for at := range c.side {
		s := &c.side[at]
		switch {
		case s.fd < 0:
		case s.is(isTCP) && !s.is(failed):
			p.sys.reset(s.fd)
		default:
			p.sys.close(s.fd)
		}
	}
	p.forget(c)
}

func (p *pump) forget(c *conn) {
	for at := range c.side {
		if c.side[at].held >= 0 {
			p.release(&c.side[at])
		}
	}
	p.ended(c)
	p.slab.give(c)
}
