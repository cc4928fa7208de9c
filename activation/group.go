package activation

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ListenGroup is Listen with members sockets for one TCP address, a SO_REUSEPORT
// group (socket(7)): each generation can be given one of its own. All are given
// in the order in which they began to listen. Until somebody steers the group,
// new connections go to the first.
//
// SO_REUSEPORT would let a second proxyd join the address unnoticed, so an
// address that anybody listens on is ErrInUse here as well.
func ListenGroup(name, address string, members int) (listeners []Listener, err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	parsed, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	addr, ok := parsed.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listen on %s: %w: only TCP sockets form groups", address, ErrAddress)
	}
	defer func() {
		if err == nil {
			return
		}
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		listeners = nil
	}()
	if addr.Port != 0 {
		fd, err := bindTCP(addr, 0, true)
		if errors.Is(err, unix.EAFNOSUPPORT) && len(addr.IP) == 0 {
			addr = &net.TCPAddr{IP: net.IPv4zero, Port: addr.Port}
			fd, err = bindTCP(addr, 0, true)
		}
		if err == nil {
			// SO_REUSEADDR lets a bind pass that listen(2) then refuses.
			if err = unix.Listen(fd, 1); errors.Is(err, unix.EADDRINUSE) {
				err = fmt.Errorf("%w: %w", ErrInUse, err)
			}
			unix.Close(fd)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	for range members {
		fd, err := bindMember(addr)
		if err == nil && len(listeners) == 0 {
			if err = steerTo(fd, 0); err != nil {
				unix.Close(fd)
			}
		}
		if err != nil {
			return listeners, fmt.Errorf("listen on %s: %w", address, err)
		}
		l, err := started(name, fd, socketFile{})
		if err != nil {
			return listeners, fmt.Errorf("listen on %s: %w", address, err)
		}
		listeners = append(listeners, l)
		addr = l.Addr.(*net.TCPAddr) // where the kernel was to pick a port
	}
	return listeners, nil
}

// bindMember gives a bound descriptor that may share its address.
func bindMember(addr *net.TCPAddr) (int, error) {
	family, sa, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if family == unix.AF_INET6 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind member: %w", err)
	}
	return fd, nil
}

// steerTo attaches the program "return index" to a group, whose first member
// need not listen yet (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
func steerTo(fd, index int) error {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(index)}}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	return nil
}

// mostBeside is how many sockets of others ListenBeside looks past.
const mostBeside = 64

// ListenBeside is Listen at an address at which generations of an earlier proxyd
// hold sockets of its group, but not all of them. The one that it gives gets all
// new connections from now on. Which index it has is found by trying: each
// connection of a try that comes to somebody else is closed at once. A client that
// comes in before a try is kept, in Clients, for the caller to serve.
//
// When one of theirs is closed the kernel moves the last member into its place. So
// that this is never the one that clients are steered to, there are as many spares
// behind it as others before it, until Close.
func ListenBeside(name, address string) (l Listener, err error) {
	parsed, err := ParseAddress(address)
	if err != nil {
		return Listener{}, err
	}
	addr, ok := parsed.(*net.TCPAddr)
	if !ok || addr.Port == 0 {
		return Listener{}, fmt.Errorf("listen on %s: %w", address, ErrAddress)
	}
	fd, err := bindMember(addr)
	if err != nil {
		return Listener{}, fmt.Errorf("listen on %s: %w", address, err)
	}
	if l, err = started(name, fd, socketFile{}); err != nil {
		return Listener{}, fmt.Errorf("listen on %s: %w", address, err)
	}
	index, err := l.find()
	for spares := 0; err == nil && spares < index; spares++ {
		err = l.addSpare(addr)
	}
	if err == nil { // one of theirs may have been closed meanwhile
		_, err = l.find()
	}
	if err == nil {
		err = l.takeFromSpares()
	}
	if err == nil {
		return l, nil
	}
	for _, c := range l.Clients {
		unix.Close(c)
	}
	return Listener{}, errors.Join(fmt.Errorf("listen on %s: %w", address, err), l.Close())
}

// find steers new connections to l, and gives its index.
func (l *Listener) find() (index int, err error) {
	// On a busy machine one may show up a little after connect(2) has returned: so
	// once more, and then it is waited for.
	for try := range 2 * mostBeside {
		index = try % mostBeside
		if err = steerTo(l.FD, index); err != nil {
			break
		}
		mine, tryErr := l.arrives(time.Duration(try/mostBeside) * lateArrival)
		if mine {
			return index, nil
		}
		err = tryErr
	}
	return 0, errors.Join(fmt.Errorf("%w: no index leads to a new socket of the group", ErrInUse), err)
}

// addSpare adds a member behind l, for the kernel to move instead of l.
func (l *Listener) addSpare(addr *net.TCPAddr) error {
	fd, err := bindMember(addr)
	if err != nil {
		return err
	}
	spare, err := started(l.Name, fd, socketFile{})
	if err == nil {
		l.spares = append(l.spares, spare.FD)
	}
	return err
}

// takeFromSpares takes the clients that the kernel gave to the spares before it was
// steered. None comes to them later.
func (l *Listener) takeFromSpares() error {
	for _, fd := range l.spares {
		for {
			got, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return fmt.Errorf("accept: %w", err)
			}
			l.Clients = append(l.Clients, got)
		}
	}
	return nil
}

// arrives says whether a connection to its address comes to l, which does not
// block, within a time. Of others that come first each is added to Clients.
func (l *Listener) arrives(within time.Duration) (bool, error) {
	addr := l.Addr.(*net.TCPAddr)
	to := *addr
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1)
		if addr.IP.To4() == nil {
			to.IP = net.IPv6loopback
		}
	}
	c, err := net.DialTimeout("tcp", to.String(), tryTime)
	if err != nil {
		return false, err
	}
	defer c.Close()
	from := c.LocalAddr().(*net.TCPAddr).AddrPort()
	for until := time.Now().Add(within); ; {
		got, sa, err := unix.Accept4(l.FD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if left := time.Until(until); errors.Is(err, unix.EAGAIN) && left > 0 {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(l.FD), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("accept: %w", err)
		}
		if peer := peerOf(sa); peer.Port() == from.Port() && peer.Addr() == from.Addr().Unmap().WithZone("") {
			unix.Close(got)
			return true, nil
		}
		l.Clients = append(l.Clients, got)
	}
}

func peerOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// tryTime bounds one try; a connect on this machine takes microseconds.
const tryTime = 5 * time.Second

// lateArrival is how long a second try waits for its connection to show up.
const lateArrival = 50 * time.Millisecond

// Cookie gives the number by which the kernel knows a socket; it is never given
// to another (SO_COOKIE, socket(7)).
func (l Listener) Cookie() (uint64, error) {
	cookie, err := unix.GetsockoptUint64(l.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read cookie of listener %q: %w", l.Name, err)
	}
	return cookie, nil
}

// RecoverGroup looks for listening sockets by their cookies, first among held, which
// stay the caller's, then among those of all processes, for a proxyd whose own ended
// with it while others still hold them. It gives duplicates of them in the order of
// cookies, or none and ErrNotHeld where nobody has any that can be had,
// ErrHeldInPart where some are missing: then the order is not known, for the kernel
// moves the last one to the place of one that was closed. See Recover for the rights
// that it needs for what is not in held.
func RecoverGroup(name string, cookies []uint64, held ...int) (listeners []Listener, err error) {
	missing := map[uint64]int{}
	for i, c := range cookies {
		missing[c] = i
	}
	listeners = make([]Listener, len(cookies))
	for i := range listeners {
		listeners[i].FD = -1
	}
	for _, fd := range held {
		if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil && !takeMissing(dup, name, missing, listeners) {
			unix.Close(dup)
		}
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("recover listener %q: %w", name, err)
	}
	for _, dir := range dirs {
		if len(missing) == 0 {
			break
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			recoverFrom(pid, name, missing, listeners)
		}
	}
	if len(missing) == 0 {
		return listeners, nil
	}
	why := ErrNotHeld
	for _, l := range listeners {
		if l.FD >= 0 {
			why = ErrHeldInPart
			unix.Close(l.FD)
		}
	}
	return nil, fmt.Errorf("recover listener %q: %d of %d members are missing: %w", name, len(missing), len(cookies), why)
}

// takeMissing puts fd in its place if it is one of the missing; else it is still the
// caller's.
func takeMissing(fd int, name string, missing map[uint64]int, into []Listener) bool {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	i, wanted := missing[cookie]
	if err != nil || !wanted || heldListening(fd) != nil {
		return false
	}
	addr, err := boundTo(fd)
	if err != nil {
		return false
	}
	into[i] = Listener{Name: name, FD: fd, Addr: addr, Source: SourceProxyd}
	delete(missing, cookie)
	return true
}

// heldListening is checkListening for a member, which may have been shut down by the
// program that has it. It is left so: whoever steers the group has it listen again.
func heldListening(fd int) error {
	err := checkListening(fd)
	if errors.Is(err, errDoesNotListen) {
		if addr, err := boundTo(fd); err == nil && addr.Network() == "tcp" && addr.(*net.TCPAddr).Port != 0 {
			return nil
		}
	}
	return err
}

// recoverFrom takes those of the missing that one process holds.
func recoverFrom(pid int, name string, missing map[uint64]int, listeners []Listener) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // ended, or another user's
	}
	pidfd := -1
	defer func() {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
	}()
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if what, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || !strings.HasPrefix(what, "socket:") {
			continue
		}
		if pidfd < 0 {
			if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
				return
			}
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0) // close-on-exec is set
		if err != nil {
			continue
		}
		if !takeMissing(fd, name, missing, listeners) {
			unix.Close(fd)
		}
	}
}
