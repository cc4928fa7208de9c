package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotHeld says that a process has no listening socket with an address, or
// does not let it be taken.
var ErrNotHeld = errors.New("it holds no such listening socket")

// ErrHeldInPart says that some sockets of a group are held, and others are not.
var ErrHeldInPart = errors.New("only some sockets of the group are still held")

// Recover gives a duplicate of the listening socket at addr that process pid
// holds, so that its queue outlives the process. It is for a proxyd that was
// started again and takes over generations: its own end of their sockets went
// with the one before it. It needs the right to trace the process
// (pidfd_getfd(2)), which the same user has unless Yama forbids it. Without that
// right, and where there is no such socket, the error is ErrNotHeld.
func Recover(pid int, name string, addr net.Addr) (Listener, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Listener{}, fmt.Errorf("recover listener %q of process %d: %w: %w", name, pid, ErrNotHeld, err)
	}
	defer unix.Close(pidfd)
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Listener{}, fmt.Errorf("recover listener %q of process %d: %w: %w", name, pid, ErrNotHeld, err)
	}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if kind, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || len(kind) < 7 || kind[:7] != "socket:" {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0) // close-on-exec is set
		if err != nil {
			continue
		}
		if checkListening(fd) == nil {
			if bound, err := boundTo(fd); err == nil && bound.Network() == addr.Network() && bound.String() == addr.String() {
				return Listener{Name: name, FD: fd, Addr: bound, Source: SourceProxyd}, nil
			}
		}
		unix.Close(fd)
	}
	return Listener{}, fmt.Errorf("recover listener %q of process %d: %w", name, pid, ErrNotHeld)
}
