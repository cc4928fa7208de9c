package activation

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Revive gives a generation's own listening socket, of Private or Recover, back in
// use where a program that had it called shutdown(2) on it; changed says so. A TCP one
// listens again, and is the same descriptor. A unix one stays shut down for ever
// (unix_shutdown in net/unix/af_unix.c): it is made anew at its path, and l is closed.
// It is for when no process has the socket any more: one that waits in accept(2) might
// not be woken.
func Revive(l Listener) (revived Listener, changed bool, err error) {
	down, err := isShutDown(l.FD)
	if err != nil {
		return l, false, fmt.Errorf("look at listener %q: %w", l.Name, err)
	}
	if !down {
		return l, false, nil
	}
	if tcp, ok := l.Addr.(*net.TCPAddr); ok {
		if err := listenAgain(l.FD); err != nil {
			return l, false, fmt.Errorf("listen again on %s: %w", tcp, err)
		}
		return l, true, nil
	}
	path := l.Addr.String()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, false, fmt.Errorf("remove socket that was shut down: %w", err)
	}
	made, err := Private(l.Name, l.Addr)
	if err != nil {
		return l, false, err
	}
	_ = l.Close() // its file is gone, and made is not its file
	return made, true, nil
}

// isShutDown says whether nobody can be accepted from a listening socket any more:
// one of TCP reports POLLHUP then, one of unix also POLLRDHUP.
func isShutDown(fd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return fds[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0, err
	}
}
