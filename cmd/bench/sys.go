package main

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the hot paths go around the Go scheduler (RawSyscall): the
// descriptors are non-blocking, so they never wait, and the load has to be cheap
// beside what it measures. epoll_wait does wait and is made the ordinary way.

func readRaw(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

func writeRaw(fd int, b []byte) (int, unix.Errno) {
	for {
		// MSG_NOSIGNAL: a broken connection is an error to count, not SIGPIPE.
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

func closeRaw(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// watch adds (unix.EPOLL_CTL_ADD) or changes (unix.EPOLL_CTL_MOD) what epfd
// reports of fd.
func watch(epfd, op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return unix.EpollCtl(epfd, op, fd, &ev)
}

// tcpSockaddr takes "127.0.0.1:8080".
func tcpSockaddr(address string) (*unix.SockaddrInet4, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("parse address: %w", err)
	}
	if !ap.Addr().Is4() {
		return nil, fmt.Errorf("parse address %q: not IPv4", address)
	}
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}

// again tells an error that only says "not now".
func again(e unix.Errno) bool { return e == unix.EAGAIN || e == unix.EINPROGRESS }
