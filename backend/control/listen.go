package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into a unix address beside its closing NUL: unix(7).
const maxSocketPath = 107

// socketMode lets proxyd's user and the socket's group connect.
const socketMode = 0o660

// ErrInUse says that someone answers at the path already.
var ErrInUse = errors.New("another proxyd answers there")

// Listen makes the control socket at path, with mode 0660 from its first moment
// on. A socket file that nobody answers at is replaced; one that is answered, or
// anything that is not a socket, is an error. The caller sees to it that no two
// run at once for a path (proxyd holds a lock beside it). Closing the listener
// takes the file away.
func Listen(path string) (net.Listener, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("make control socket %s: %w", path, err)
	}
	l, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil { // the umask may have taken the group's part away
		l.Close()
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	return l, nil
}

// bind makes the socket file with socketMode or less. bind(2) gives it the mode
// of the socket itself less the umask (unix_bind_bsd in net/unix/af_unix.c), so
// setting that first leaves no moment with a wider mode, and the umask alone,
// which is the whole process's.
func bind(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); cerr != nil {
			return cerr
		}
		return err
	}}
	return lc.Listen(context.Background(), "unix", path)
}

// checkSocketPath refuses what does not fit into a unix address, and what would
// make an abstract one, which has no mode and which anybody may connect to.
func checkSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("its path is empty")
	case len(path) > maxSocketPath:
		return fmt.Errorf("%s: a unix address holds at most %d bytes, this path has %d", path, maxSocketPath, len(path))
	case path[0] == '@', strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("%q is not the path of a file", path)
	}
	return nil
}

// clearStale removes a socket file that nobody answers at.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is not a socket is in the way")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return ErrInUse
	case errors.Is(err, unix.EAGAIN): // its queue is full, but it is there
		return ErrInUse
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}
