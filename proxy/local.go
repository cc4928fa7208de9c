package proxy

import (
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What can be saved where both ends of a TCP connection are on this machine.

// unpaced is a congestion control that sends as soon as it may. BBR spreads
// what it sends over time instead, by a timer for each socket. Within one
// machine that only costs: a stream took 1.4 to 1.8 times the CPU. reno is part
// of every kernel and everybody may choose it, see tcp(7).
const unpaced = "reno"

// pacedByDefault tells whether new sockets are paced: paced, or no flag.
func pacedByDefault() flags {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err == nil && strings.HasPrefix(string(b), "bbr") {
		return paced
	}
	return 0
}

// unpace is called before a stream goes to dst, and does its work once. What
// carries messages only never gets here, so that it need not pay for it.
func (p *pump) unpace(dst *side, from int) {
	if from == client {
		p.upload = true
	}
	if dst.is(paced) {
		dst.flags &^= paced
		p.sys.unpace(dst.fd)
	}
}

func (k *linux) unpace(fd int32) {
	peer, isUnix, err := endpoint(unix.Getpeername(int(fd)))
	if err != nil || isUnix {
		return
	}
	own, _, err := endpoint(unix.Getsockname(int(fd)))
	if err == nil && (peer.Addr().IsLoopback() || peer.Addr() == own.Addr()) {
		unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, unpaced)
	}
}

// prepareLocal prepares a socket for a connect to a backend on this machine.
func (l *loop) prepareLocal(c *conn) {
	s := &c.side[backend]
	if l.proxy.paced != 0 {
		if l.upload {
			// Pacing, once begun, never quite ends: here it does not begin.
			unix.SetsockoptString(int(s.fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, unpaced)
		} else {
			s.flags |= paced
		}
	}
	if l.proxy.headers[c.listener].send != 0 || l.os.unread(c.side[client].fd) > 0 {
		// The first bytes follow at once, and take the last ACK of the
		// handshake along: a packet less, and the backend wakes up once for
		// both. tcp(7): this holds for the handshake only.
		c.side[client].flags |= readable
		unix.SetsockoptInt(int(s.fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	}
}

// unread counts the bytes that wait in a socket: ioctl(2), SIOCINQ, see tcp(7)
// and unix(7).
func (k *linux) unread(fd int32) int {
	var n int32
	syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}
