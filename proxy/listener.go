package proxy

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// prepare checks a listening socket and sets what its connections inherit;
// that saves the same calls for each of them. It tells whether it is TCP.
func prepare(fd int, alive, user time.Duration) (tcp bool, err error) {
	for _, want := range []struct{ opt, value int }{
		{unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_ACCEPTCONN, 1},
	} {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.opt)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrListener, err)
		}
		if n != want.value {
			return false, ErrListener
		}
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return false, fmt.Errorf("read family: %w", err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false, fmt.Errorf("read flags: %w", err)
	}
	if flags&unix.O_NONBLOCK == 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			return false, fmt.Errorf("set nonblocking: %w", err)
		}
	}
	switch family {
	case unix.AF_UNIX:
		return false, nil
	case unix.AF_INET, unix.AF_INET6:
	default:
		return false, ErrListener
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return false, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return true, detectDeath(fd, alive, user)
}

// detectDeath sets what ends a connection whose peer has vanished: keepalive
// while nothing is on its way to it, TCP_USER_TIMEOUT while something is. Zero
// or less: not set.
func detectDeath(fd int, alive, user time.Duration) error {
	if alive > 0 {
		if err := keepAlive(fd, alive); err != nil {
			return err
		}
	}
	if user > 0 {
		// A Multipath TCP listener, which Go's net.Listen makes, has no such
		// option; what it accepts then keeps the kernel's own limit.
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(1, user.Milliseconds())))
		if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
		}
	}
	return nil
}

// keepAlive asks a quiet peer after d, and then four times within another d.
func keepAlive(fd int, d time.Duration) error {
	idle := int(max(1, d/time.Second))
	for _, o := range []struct{ level, opt, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, idle/4)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("set keepalive: %w", err)
		}
	}
	return nil
}

// ephemeralPorts is the range that the kernel takes a connect's own port from.
func ephemeralPorts() (r [2]int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return [2]int{1, 65535}
	}
	if _, err := fmt.Sscan(string(b), &r[0], &r[1]); err != nil {
		return [2]int{1, 65535}
	}
	return r
}
