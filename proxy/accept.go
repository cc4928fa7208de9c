package proxy

import (
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxBurst     = 16
	firstBackoff = int64(5 * time.Millisecond)
	lastBackoff  = int64(time.Second)
)

// listen starts or stops accepting as the route, a hold, the limit and
// failures ask for. A listener that is watched with EPOLLEXCLUSIVE cannot be
// modified (epoll_ctl(2)), so it is taken out and put in.
func (l *loop) listen() {
	p := l.proxy
	want := uint64(0)
	if p.taking.Load() && !p.held.Load() && p.barred.Load() == 0 && !l.full.Load() && !l.resting && (l.index == 0 || !p.inOrder()) {
		want = p.open.Load() &^ l.unusable
	}
	change := want ^ l.listening
	l.listening = want
	for i, fd := range p.listeners {
		k := key{ref: int32(-2 - i)}
		if change&(1<<i) == 0 {
			continue
		}
		if want&(1<<i) == 0 {
			l.os.watch(unix.EPOLL_CTL_DEL, fd, 0, k)
		} else if errno := l.os.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, k); errno != 0 {
			p.log.Error("listener not watched", "listener", p.names[i], "error", errno)
			l.listening &^= 1 << i // so that it is tried again
			l.rest()
		}
	}
}

// inOrder says whether the clients of the route are connected in the order in
// which they waited: one loop takes them all.
func (p *Proxy) inOrder() bool {
	r := p.route.Load()
	return r != nil && r.inOrder
}

// accept takes new connections of one listener. How many a wake rises while
// more are waiting, so that a single one costs no accept4(2) in vain.
func (l *loop) accept(i int) {
	p := l.proxy
	if l.listening&(1<<i) == 0 {
		return
	}
	for n := max(1, l.burst[i]); n > 0; n-- {
		if !p.enter() {
			l.stopFull()
			return
		}
		fd, errno := l.take(p.listeners[i])
		switch errno {
		case 0:
			l.backoff = 0
			if p.members[i] {
				_ = tag(int(fd), hold) // it is the relay's now, and no generation's
			}
			if to := p.lighter(l); to != nil && !p.inOrder() {
				to.load.Add(1)
				if to.post(command{what: adopt, fd: fd, listener: i}) {
					continue
				}
			}
			l.load.Add(1)
			l.admit(fd, i)
		case unix.EAGAIN:
			p.leave()
			l.burst[i] = 1
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			p.leave()
			p.emfile.Add(1)
			p.log.Warn("accept failed, clients wait", "listener", p.names[i], "error", errno)
			l.rest()
			l.listen()
			return
		case unix.EBADF, unix.EINVAL, unix.ENOTSOCK, unix.EOPNOTSUPP, unix.EFAULT:
			p.leave()
			p.tellUnusable(i, errno, l.now)
			l.unusable |= 1 << i // and the others go on
			l.backOff()
			l.listen()
			return
		default: // ECONNABORTED, EPROTO, EINTR and the network errors of accept(2)
			p.leave()
		}
	}
	l.burst[i] = min(maxBurst, max(1, l.burst[i])*2)
}

// tellUnusable logs that a listener cannot be accepted from. Of a member Direct tells.
func (p *Proxy) tellUnusable(i int, errno syscall.Errno, now int64) {
	last := p.unusableAt.Load()
	if p.members[i] || last != 0 && now-last < tellEvery || !p.unusableAt.CompareAndSwap(last, now) {
		return
	}
	p.log.Error("listener unusable, trying again", "listener", p.names[i], "error", errno)
}

// rest stops accepting for a while.
func (l *loop) rest() {
	l.resting = true
	l.backOff()
}

// backOff sets the timer that ends a rest, of all listeners or of one.
func (l *loop) backOff() {
	l.backoff = min(max(2*l.backoff, firstBackoff), lastBackoff)
	l.timers.add(timer{l.now + l.backoff, key{}, acceptAgain})
}

// stopFull stops accepting until a connection ends in any loop.
func (l *loop) stopFull() {
	l.full.Store(true)
	l.listen()
	l.proxy.crowded.Store(true)
	if l.proxy.live.Load() < l.proxy.limit { // one ended in between
		l.proxy.uncrowd()
	}
}

// admit gives an accepted connection a record and a backend.
func (l *loop) admit(fd int32, listener int) {
	c := l.slab.take()
	c.listener = uint8(listener)
	c.active = l.tick
	s := &c.side[client]
	s.fd = fd
	if l.proxy.isTCP[listener] {
		s.flags = isTCP | l.proxy.paced
	} else {
		// A unix client that passes descriptors makes a read stop short.
		s.flags = exhaust
	}
	c.state = waiting
	c.due = l.now + l.proxy.connectTimeout
	believed := l.proxy.headers[listener].believes(fd)
	if errno := l.os.watch(unix.EPOLL_CTL_ADD, fd, edges, c.key(client)); errno != 0 {
		l.abort(c)
		return
	}
	if believed {
		c.state = hearing
		l.hear(c)
		if c.state == hearing {
			l.timers.add(timer{l.now + l.proxy.headerTimeout, c.key(client), hearNoMore})
		}
		return
	}
	l.dial(c)
}

// leave is told of each connection that ends, before its record is given back.
func (l *loop) leave(c *conn) {
	l.count(c)
	l.unlink(c)
	l.forgetOwn(c)
	if len(l.strayed) > 0 {
		delete(l.strayed, c.index)
	}
	l.place(c, nil)
	l.load.Add(-1)
	l.proxy.leave()
}

// TakeOver relays a client that somebody else has accepted from the listener
// with a descriptor, and that does not block; where there is no route, once there
// is one. The proxy owns fd from now on.
func (p *Proxy) TakeOver(fd, listener int) {
	i := slices.Index(p.listeners, int32(listener))
	_ = tag(fd, hold)
	p.live.Add(1) // also past the limit: it is accepted
	p.loops[0].load.Add(1)
	if i < 0 || !p.loops[0].post(command{what: adopt, fd: int32(fd), listener: i}) {
		p.loops[0].load.Add(-1)
		p.live.Add(-1)
		unix.Close(fd)
	}
}
