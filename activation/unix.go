package activation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func listenUnix(name, path string, flags int, mode uint32) (Listener, error) {
	fd, file, err := bindUnix(path, unix.SOCK_STREAM|flags, mode)
	if err != nil {
		return Listener{}, err
	}
	return started(name, fd, file)
}

// bindUnix gives a descriptor that is bound to path, after removing a socket
// there on which nobody listens. mode, where not 0, becomes the file's mode less
// the umask: bind(2) takes it from the socket's own inode (unix_bind_bsd in
// net/unix/af_unix.c), so there is no moment at which the file is wider open.
func bindUnix(path string, kind int, mode uint32) (int, socketFile, error) {
	if err := checkPath(path); err != nil {
		return -1, socketFile{}, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, socketFile{}, fmt.Errorf("open socket: %w", err)
	}
	if mode != 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			unix.Close(fd)
			return -1, socketFile{}, fmt.Errorf("set socket mode: %w", err)
		}
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path, kind); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
	}
	var file socketFile
	if err == nil {
		file, err = madeFile(path)
	}
	if err != nil {
		unix.Close(fd)
		return -1, socketFile{}, fmt.Errorf("bind: %w", err)
	}
	return fd, file, nil
}

// removeStale removes the socket at path if nobody listens on it any more.
// Whatever else is there stays.
func removeStale(path string, kind int) error {
	if stale, err := isStale(path, kind); err != nil || !stale {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

// isStale says whether there is a socket at path to which a connect is refused:
// the file outlives the process that bound it (unix(7)), and then nobody can ever
// listen on it again. Anything else that is there is an error.
func isStale(path string, kind int) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return false, ErrNoSocket
	}
	probe, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(probe)
	switch err := unix.Connect(probe, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED):
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: its queue is full
		return false, ErrInUse
	default: // not allowed to connect, a socket of another type, ...: not ours to remove
		return false, fmt.Errorf("%w: %w", ErrInUse, err)
	}
}
