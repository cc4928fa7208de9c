package main

import (
	"bytes"

	"golang.org/x/sys/unix"
)

var lastRequest = request(askLast, 0)

// issueDue begins as many requests as the job allows now.
func (l *loadLoop) issueDue() {
	for l.busy < l.most {
		at := l.now()
		if l.due.on && !l.due.take(&at) {
			l.due.arm(l.timer, at)
			return
		}
		if !l.take() {
			l.due.on = false
			return
		}
		l.issue(at)
	}
}

// issue sends one request on the connection that rested longest, or on a new one
// where there is none.
func (l *loadLoop) issue(at int64) {
	l.busy++
	if !l.job.dials {
		if fd, ok := l.ring.pop(); ok {
			l.send(fd, at)
			return
		}
	}
	l.dial(at)
}

// dial begins a connection with its first request. On loopback the connection is
// nearly always made when connect(2) returns EINPROGRESS, so the request is
// tried at once.
func (l *loadLoop) dial(at int64) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.failed("socket: " + err.Error())
		return
	}
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]loadConn, 1024)...)
	}
	l.conns[fd] = loadConn{open: true, pending: true, unsent: true}
	if err := unix.Connect(fd, l.address); err != nil && err != unix.EINPROGRESS {
		l.broken(fd, "connect: "+err.Error())
		return
	}
	l.send(fd, at)
	events := uint32(unix.EPOLLIN)
	if l.conns[fd].unsent {
		events |= unix.EPOLLOUT
	}
	if l.conns[fd].open {
		if err := watch(l.epfd, unix.EPOLL_CTL_ADD, fd, events); err != nil {
			l.broken(fd, "watch: "+err.Error())
		}
	}
}

func (l *loadLoop) send(fd int, at int64) {
	c := &l.conns[fd]
	c.start, c.left, c.pending = at, blockSize, true
	c.uses++
	c.last = l.job.perConn > 0 && c.uses >= l.job.perConn
	l.write(fd)
}

func (l *loadLoop) write(fd int) {
	c := &l.conns[fd]
	b := keepRequest
	if c.last {
		b = lastRequest
	}
	n, errno := writeRaw(fd, b)
	switch {
	case errno != 0 && c.unsent && again(errno):
	case errno != 0:
		l.broken(fd, "send: "+errno.Error())
	case n < len(b):
		l.broken(fd, "send: cut short") // 64 bytes fit into an empty buffer
	default:
		c.unsent = false
	}
}

func (l *loadLoop) event(fd int, events uint32) {
	c := &l.conns[fd]
	if !c.open {
		return // closed earlier in the same batch
	}
	if c.unsent && events&unix.EPOLLOUT != 0 {
		l.write(fd)
		if !c.unsent {
			_ = watch(l.epfd, unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN)
		}
		return
	}
	n, errno := readRaw(fd, l.buf)
	switch {
	case errno != 0 && again(errno):
	case errno != 0:
		l.broken(fd, "receive: "+errno.Error())
	case n == 0 && c.last && c.left == 0:
		l.answered(fd)
		l.forget(fd)
	case n == 0:
		l.broken(fd, "receive: connection ended early")
	case n > c.left || c.left == blockSize && !bytes.HasPrefix(l.buf[:n], responseStart[:min(n, len(responseStart))]):
		l.broken(fd, "receive: not the response")
	default:
		c.left -= n
		if c.left > 0 {
			return
		}
		if c.last {
			l.event(fd, events) // the end of stream is often there already
			return
		}
		l.answered(fd)
		l.ring.push(fd)
	}
}

func (l *loadLoop) answered(fd int) {
	c := &l.conns[fd]
	c.pending = false
	l.busy--
	l.samples = append(l.samples, sample{at: c.start, took: l.now() - c.start})
}

// broken gives a connection up; what was under way on it failed. The next
// request makes a new one. One that breaks while it rests is a failure as well.
func (l *loadLoop) broken(fd int, reason string) {
	pending := l.conns[fd].pending
	l.forget(fd)
	if pending {
		l.failed(reason)
		return
	}
	l.ring.remove(fd)
	l.failures["at rest: "+reason]++
}

// failed ends the request under way without an answer.
func (l *loadLoop) failed(reason string) {
	l.busy--
	l.failures[reason]++
}

func (l *loadLoop) forget(fd int) {
	l.conns[fd].open = false
	closeRaw(fd)
}
