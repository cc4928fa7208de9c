package activation

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// backlog is asked of listen(2); the kernel lowers it to net.core.somaxconn. A
// long queue is what lets clients wait, instead of failing, while nothing serves.
const backlog = 4096

// Listen opens a client-facing listening socket where systemd passes none. See
// ParseAddress for the form of address; "[::]:80" and ":80" take IPv4 as well.
// A socket file that a dead process left behind is replaced; a live one is
// ErrInUse, anything else there ErrNoSocket. Who may connect to a unix socket is
// left to the umask and the directory, as for any program.
//
// The caller owns the descriptor, which has FD_CLOEXEC and O_NONBLOCK, and
// closes it with Close.
func Listen(name, address string) (Listener, error) {
	if err := CheckName(name); err != nil {
		return Listener{}, err
	}
	addr, err := ParseAddress(address)
	if err != nil {
		return Listener{}, err
	}
	l, err := listen(name, addr, unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return Listener{}, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// Private opens a listening socket of one generation, which proxyd holds open
// while the generation is started again. addr is a unix path in a directory that
// exists (the socket's mode becomes 0600), or a loopback TCP address; its port 0
// gives a free port outside of the ephemeral range, for the reason that FreePort
// gives.
//
// The caller owns the descriptor, which has FD_CLOEXEC and, like the ones that
// systemd passes by default, no O_NONBLOCK: programs that are handed a socket
// may count on accept blocking. It is closed with Close.
func Private(name string, addr net.Addr) (Listener, error) {
	if err := CheckName(name); err != nil {
		return Listener{}, err
	}
	tcp, ok := addr.(*net.TCPAddr)
	if ok && !tcp.IP.IsLoopback() {
		return Listener{}, fmt.Errorf("listen on %s: %w: a generation's own address is a loopback one", addr, ErrAddress)
	}
	var l Listener
	var err error
	if ok && tcp.Port == 0 {
		l, err = listenAnyPort(name, tcp)
	} else {
		l, err = listen(name, addr, 0, 0o600)
	}
	if err != nil {
		return Listener{}, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// listen opens, binds and listens. flags go to socket(2); mode, where not 0, is
// the one of the socket file.
func listen(name string, addr net.Addr, flags int, mode uint32) (Listener, error) {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		return listenTCP(name, addr, flags)
	case *net.UnixAddr:
		return listenUnix(name, addr.Name, flags, mode)
	default:
		return Listener{}, fmt.Errorf("%w: a %T", ErrAddress, addr)
	}
}

func listenTCP(name string, addr *net.TCPAddr, flags int) (Listener, error) {
	fd, err := bindAny(addr, flags, true)
	if err != nil {
		return Listener{}, err
	}
	return started(name, fd, socketFile{})
}

// bindAny is bindTCP where an address of no family means IPv4 alone on a host
// without IPv6.
func bindAny(addr *net.TCPAddr, flags int, reuse bool) (int, error) {
	fd, err := bindTCP(addr, flags, reuse)
	if errors.Is(err, unix.EAFNOSUPPORT) && len(addr.IP) == 0 {
		fd, err = bindTCP(&net.TCPAddr{IP: net.IPv4zero, Port: addr.Port}, flags, reuse)
	}
	return fd, err
}

// bindTCP gives a descriptor that is bound to addr and does not listen yet.
// reuse sets SO_REUSEADDR, which on Linux lets a bind pass over connections in
// TIME_WAIT, never over another listener (socket(7)).
func bindTCP(addr *net.TCPAddr, flags int, reuse bool) (int, error) {
	family, sa, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil && family == unix.AF_INET6 {
		// The default is net.ipv6.bindv6only; "every address" must not depend on it.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set socket option: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return -1, fmt.Errorf("%w: %w", ErrInUse, err)
		}
		return -1, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}

// started makes a bound descriptor listen. It owns fd and file until it returns
// without an error.
func started(name string, fd int, file socketFile) (Listener, error) {
	err := unix.Listen(fd, backlog)
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	var addr net.Addr
	if err == nil {
		addr, err = boundTo(fd)
	}
	if err != nil {
		_ = file.remove()
		unix.Close(fd)
		return Listener{}, err
	}
	return Listener{Name: name, FD: fd, Addr: addr, Source: SourceProxyd, file: file}, nil
}
