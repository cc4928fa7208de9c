package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

var listenVars = []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}

// Inherited gives the listening sockets that systemd, or whoever speaks its
// protocol, passed to this process, in their order; nil where none were passed.
// It reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES as sd_listen_fds(3) does
// and takes them out of the environment, so it answers only once. Variables
// meant for another process (LISTEN_PID) count as none.
//
// Each descriptor must be a listening stream socket of IPv4, IPv6 or unix. One of
// TCP that is bound and does not listen was shut down by a program that had it, and
// listens again. The error names every one that is not, by number and name. The same name may stand
// on several descriptors: several addresses of one listener, or several members
// of one SO_REUSEPORT group.
//
// stored are the listening sockets that an earlier process gave to Store, by the
// names that they have there. One that is no such socket is dropped: the store
// is proxyd's own, so it serves nobody.
//
// The caller owns the descriptors; FD_CLOEXEC is set on them, and O_NONBLOCK on
// listeners without SO_REUSEPORT. On an error they stay open, as they were found.
func Inherited() (listeners, stored []Listener, err error) {
	env := map[string]string{}
	for _, k := range listenVars {
		if v, ok := os.LookupEnv(k); ok {
			env[k] = v
			_ = os.Unsetenv(k)
		}
	}
	n, err := passed(env, os.Getpid())
	if err != nil || n == 0 {
		return nil, nil, err
	}
	names, err := passedNames(env, n)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for i, name := range names {
		if strings.Contains(name, storeMark) {
			if l, err := inheritStored(firstFD+i, name); err == nil {
				stored = append(stored, l)
			} else {
				unix.Close(firstFD + i)
			}
			continue
		}
		l, err := inherit(firstFD+i, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("descriptor %d (%q): %w", firstFD+i, name, err))
			continue
		}
		listeners = append(listeners, l)
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return listeners, stored, nil
}

// passed tells how many descriptors env says were passed to pid.
func passed(env map[string]string, pid int) (int, error) {
	if env["LISTEN_PID"] == "" || env["LISTEN_FDS"] == "" {
		return 0, nil
	}
	meant, err := strconv.Atoi(env["LISTEN_PID"])
	if err != nil || meant <= 0 {
		return 0, fmt.Errorf("read LISTEN_PID: %q is not a process id", env["LISTEN_PID"])
	}
	if meant != pid {
		return 0, nil
	}
	n, err := strconv.Atoi(env["LISTEN_FDS"])
	if err != nil || n < 0 {
		return 0, fmt.Errorf("read LISTEN_FDS: %q is not a number of descriptors", env["LISTEN_FDS"])
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(n) > limit.Max {
		return 0, fmt.Errorf("read LISTEN_FDS: %d descriptors are more than this process may have (%d)", n, limit.Max)
	}
	return n, nil
}

// passedNames gives a name for each of n descriptors.
func passedNames(env map[string]string, n int) ([]string, error) {
	text, ok := env["LISTEN_FDNAMES"]
	if !ok {
		names := make([]string, n)
		for i := range names {
			names[i] = DefaultName
		}
		return names, nil
	}
	names := strings.Split(text, ":")
	if len(names) != n {
		return nil, fmt.Errorf("read LISTEN_FDNAMES: it holds %d names for %d descriptors", len(names), n)
	}
	return names, nil
}

// inherit checks one descriptor and takes it over.
func inherit(fd int, name string) (Listener, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return Listener{}, errors.New("is not open, though LISTEN_FDS counts it")
	}
	unix.CloseOnExec(fd)
	if err := CheckName(name); err != nil {
		return Listener{}, fmt.Errorf("%w; set FileDescriptorName= in the .socket unit", err)
	}
	err := checkListening(fd)
	if errors.Is(err, errDoesNotListen) {
		err = listenAgain(fd)
	}
	if err != nil {
		return Listener{}, err
	}
	// A member of a group may be a running generation's, which knows the flag as it
	// is: it is the socket's, and not this descriptor's.
	if member, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || member == 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			return Listener{}, fmt.Errorf("set O_NONBLOCK: %w", err)
		}
	}
	addr, err := boundTo(fd)
	if err != nil {
		return Listener{}, err
	}
	return Listener{Name: name, FD: fd, Addr: addr, Source: SourceSystemd}, nil
}

// checkListening says what fd is where it is not a listening stream socket
// (socket(7): SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN).
func checkListening(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if errors.Is(err, unix.ENOTSOCK) {
		what, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		return fmt.Errorf("not a socket, but %q", what)
	}
	if err != nil {
		return fmt.Errorf("read socket type: %w", err)
	}
	switch kind {
	case unix.SOCK_STREAM:
	case unix.SOCK_DGRAM:
		return errors.New("a datagram socket, and proxyd carries streams: use ListenStream=, not ListenDatagram=")
	case unix.SOCK_SEQPACKET:
		return errors.New("a sequential-packet socket, and proxyd carries streams: use ListenStream=, not ListenSequentialPacket=")
	default:
		return fmt.Errorf("a socket of type %d, and proxyd carries streams: use ListenStream=", kind)
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("read socket family: %w", err)
	}
	switch family {
	case unix.AF_INET, unix.AF_INET6:
		proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return fmt.Errorf("read socket protocol: %w", err)
		}
		if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_MPTCP {
			return fmt.Errorf("a socket of protocol %d, and proxyd carries TCP: leave out SocketProtocol=", proto)
		}
	case unix.AF_UNIX:
	default:
		return fmt.Errorf("a socket of family %d, and proxyd knows IPv4, IPv6 and unix", family)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fmt.Errorf("read whether it listens: %w", err)
	}
	if listening == 0 {
		if _, err := unix.Getpeername(fd); err == nil {
			return errors.New("a connection, not a listening socket: use Accept=no in the .socket unit")
		}
		return errDoesNotListen
	}
	return nil
}

var errDoesNotListen = errors.New("a stream socket that does not listen")

// listenAgain has a TCP socket listen that somebody has called shutdown(2) on: that
// ends its listening for all who hold it, and leaves it bound to its port where that
// was asked for by number. A unix socket cannot come back.
func listenAgain(fd int) error {
	addr, err := boundTo(fd)
	if tcp, ok := addr.(*net.TCPAddr); err != nil || !ok || tcp.Port == 0 {
		return errDoesNotListen
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("%w, and cannot again: %w", errDoesNotListen, err)
	}
	return nil
}

// boundTo gives the address that fd is bound to (getsockname(2)).
func boundTo(fd int) (net.Addr, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("read socket address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}, nil
	case *unix.SockaddrInet6:
		addr := &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
		if sa.ZoneId != 0 {
			addr.Zone = strconv.Itoa(int(sa.ZoneId))
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				addr.Zone = i.Name
			}
		}
		return addr, nil
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Net: "unix", Name: sa.Name}, nil
	default:
		return nil, fmt.Errorf("socket address of unknown kind %T", sa)
	}
}
