package proxy

import (
	"syscall"
	"unsafe"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"
)

// hear looks for the header that a trusted client begins with, and goes on to
// the backend when it is whole. It stays in the socket until it is needed, so
// that one which comes byte by byte, or waits for its backend, costs nothing.
// A client that begins otherwise is reset: which address it stands for is not
// to be guessed. The time for it is bounded by the timer that admit set.
func (l *loop) hear(c *conn) {
	s := &c.side[client]
	n, errno := peek(s.fd, l.buf[:maxHeader])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		if errno == unix.EINTR {
			l.timers.add(timer{l.now, c.key(client), hearAgain})
		}
		return
	case errno != 0 || n == 0:
		l.abort(c)
		return
	}
	size, err := headerSize(l.buf[:n])
	if err == nil && size > 0 {
		_, err = parseHeader(l.buf[:size])
	}
	switch {
	case err != nil:
		l.proxy.log.Debug("client reset: it has to begin with a PROXY header", "listener", l.proxy.names[c.listener], "error", err)
		l.abort(c)
	case size > 0:
		c.headed = true
		c.state = waiting
		c.due = l.now + l.proxy.connectTimeout
		l.dial(c)
	case s.is(fin):
		l.abort(c) // it will not become whole
	}
}

// introduce tells the backend, before all else, who the client is, and takes a
// header that the client began with out of its stream. False: the connection
// is over.
func (l *loop) introduce(c *conn) bool {
	s := &c.side[client]
	var said *proxyproto.Header
	var raw []byte
	if c.headed {
		c.headed = false
		n, _ := peek(s.fd, l.buf[:maxHeader])
		size, err := headerSize(l.buf[:max(0, n)])
		if err == nil && size > 0 {
			said, err = parseHeader(l.buf[:size])
		}
		if err != nil || size == 0 {
			l.abort(c) // it was reset meanwhile
			return false
		}
		raw = l.buf[:size]
		for at := 0; at < size; {
			n, errno := l.sys.recv(s.fd, raw[at:])
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 || n == 0 {
				l.abort(c)
				return false
			}
			at += n
		}
	}
	b, err := l.proxy.headers[c.listener].format(s.fd, said, raw)
	if err != nil { // ENOTCONN: the client has reset the connection
		l.abort(c)
		return false
	}
	if len(b) > 0 {
		l.write(c, client, b)
	}
	return true
}

// peek reads what is there and leaves it: recv(2) with MSG_PEEK.
func peek(fd int32, b []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	return int(n), e
}
