package proxy

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	firstRetry = int64(time.Millisecond)
	lastRetry  = int64(50 * time.Millisecond)
)

// dial connects to where new connections go now. Nothing was forwarded yet, so
// a try that fails is made again until the connect timeout, each time to the
// route of that moment; the in-flight count moves along. While nothing is
// switched in the connection waits, and its time does not run.
func (l *loop) dial(c *conn) {
	r := l.proxy.route.Load()
	if c.cell >= 0 && l.cells[c.cell].route != r {
		l.cells[c.cell].counts.accepted.Add(-1) // it never got there
	}
	l.place(c, r)
	if r == nil {
		c.due = l.now + l.proxy.connectTimeout
		l.tryLater(c)
		return
	}
	if r.inOrder && !l.straight(c) {
		return
	}
	d := &r.dests[c.listener]
	fd, errno := socket(d.family)
	if errno != 0 {
		l.unreached(c, errno)
		return
	}
	s := &c.side[backend]
	s.fd, s.flags = fd, 0
	if d.family != unix.AF_UNIX {
		s.flags = isTCP | nagle
		if d.remote {
			detectDeath(int(fd), l.proxy.keepAlive, l.proxy.userTimeout)
		} else {
			l.prepareLocal(c)
		}
	}
	errno = connect(fd, d.raw)
	if errno == unix.EINPROGRESS && !d.remote {
		// Over loopback the handshake ends within the call, which does not say
		// so. Asking again saves a turn.
		errno = connect(fd, d.raw)
	}
	if r.inOrder {
		l.noteOwn(c)
	}
	switch errno {
	case 0:
		if l.metItself(c) {
			l.unreached(c, unix.ECONNREFUSED)
			return
		}
		l.reached(c, edges)
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		c.state = connecting
		l.link(c)
		s.flags |= armed
		if errno := l.os.watch(unix.EPOLL_CTL_ADD, fd, edges|writeEdge, c.key(backend)); errno != 0 {
			l.unreached(c, errno)
		}
	default:
		l.unreached(c, errno)
	}
}

// connected takes the outcome of a TCP connect in progress.
func (l *loop) connected(c *conn, events uint32) {
	s := &c.side[backend]
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		// A connection that was made and reset at once is reached too: what it
		// sent can still be read. SO_ERROR is not asked, as that clears it;
		// a peer's address is only there when it was made.
		if !hasPeer(s.fd) {
			errno := unix.ECONNREFUSED
			if n, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
				errno = syscall.Errno(n)
			}
			l.unreached(c, errno)
			return
		}
	}
	if l.metItself(c) {
		l.unreached(c, unix.ECONNREFUSED)
		return
	}
	s.note(events)
	l.unlink(c)
	l.reached(c, 0)
}

// reached starts the relay; watch is what epoll shall report of the backend,
// 0 if it does already.
func (l *loop) reached(c *conn, watch uint32) {
	s := &c.side[backend]
	if watch != 0 {
		if errno := l.os.watch(unix.EPOLL_CTL_ADD, s.fd, watch, c.key(backend)); errno != 0 {
			l.unreached(c, errno)
			return
		}
	}
	c.state = relaying
	c.due = 0
	if l.proxy.headers[c.listener].any() && !l.introduce(c) {
		return
	}
	l.proceed(c)
	l.count(c)
}

// unreached plans the next try, or gives up with a reset. A client that goes to
// our own address has waited in a queue there and would wait in the next one: it
// is not given up while that is full.
func (l *loop) unreached(c *conn, errno syscall.Errno) {
	l.unlink(c)
	l.forgetOwn(c)
	if s := &c.side[backend]; s.fd >= 0 {
		if s.is(isTCP) {
			// It may have been made, to itself or just now: a close would leave
			// the port in TIME_WAIT, and whoever should listen there could not
			// bind it for a minute.
			l.os.reset(s.fd)
		} else {
			l.os.close(s.fd)
		}
		s.fd, s.flags = -1, 0
	}
	c.state = waiting
	if c.cell >= 0 && l.cells[c.cell].route.inOrder {
		c.due = l.now + l.proxy.connectTimeout
	}
	if l.now < c.due {
		l.tryLater(c)
		return
	}
	if c.cell >= 0 {
		l.cells[c.cell].counts.failures.Add(1)
		l.proxy.tellUnreached(l.cells[c.cell].route.generation, errno, l.now)
	}
	l.abort(c)
}

// tellEvery is the least between two lines of one kind that clients can cause.
const tellEvery = int64(time.Minute)

// tellUnreached logs that a client was given up, with how many there were since
// the last line.
func (p *Proxy) tellUnreached(generation uint64, errno syscall.Errno, now int64) {
	n := p.unreached.Add(1)
	last := p.toldAt.Load()
	if last != 0 && now-last < tellEvery || !p.toldAt.CompareAndSwap(last, now) {
		return
	}
	p.unreached.Add(-n)
	p.log.Warn("clients reset: the generation cannot be connected to", "generation", generation, "clients", n, "error", errno)
}

func (l *loop) tryLater(c *conn) {
	delay := min(firstRetry<<min(c.tries, 10), lastRetry)
	c.tries = min(c.tries+1, 100)
	at := l.now + delay
	if c.cell >= 0 {
		at = min(at, c.due)
	}
	l.timers.add(timer{at, c.key(client), dialAgain})
}

// link and unlink keep those that connect, oldest first.
func (l *loop) link(c *conn) {
	c.prev, c.next = l.tail, -1
	if l.tail >= 0 {
		l.slab.at(l.tail).next = c.index
	} else {
		l.head = c.index
	}
	l.tail = c.index
}

func (l *loop) unlink(c *conn) {
	if c.state != connecting {
		return
	}
	if c.prev >= 0 {
		l.slab.at(c.prev).next = c.next
	} else {
		l.head = c.next
	}
	if c.next >= 0 {
		l.slab.at(c.next).prev = c.prev
	} else {
		l.tail = c.prev
	}
	c.prev, c.next = -1, -1
}

// connect is connect(2). Called again it tells how the first call has gone on.
func connect(fd int32, raw []byte) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(raw))), uintptr(len(raw)))
	return errno
}

func (l *loop) metItself(c *conn) bool {
	return l.proxy.selfRisk(l.cells[c.cell].route, int(c.listener)) && toItself(c.side[backend].fd)
}

func hasPeer(fd int32) bool {
	_, err := unix.Getpeername(int(fd))
	return err == nil
}

// toItself: a connect to a port that nobody listens on can be given that very
// port as its own, and then meets itself.
func toItself(fd int32) bool {
	a, err := unix.Getsockname(int(fd))
	if err != nil {
		return false
	}
	b, err := unix.Getpeername(int(fd))
	if err != nil {
		return false
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, ok := b.(*unix.SockaddrInet4)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, ok := b.(*unix.SockaddrInet6)
		return ok && a.Port == b.Port && a.Addr == b.Addr
	}
	return false
}
