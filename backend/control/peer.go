package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a connection.
type peer struct {
	pid   int
	pidfd int
}

// peerOf tells which process connected: SO_PEERCRED in unix(7), and since Linux
// 6.5 SO_PEERPIDFD, which stays with that process whatever becomes of its number.
func (g *gate) peerOf(c *conn) (peer, error) {
	fail := func(err error) (peer, error) {
		return peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	u, ok := c.Conn.(*net.UnixConn)
	if !ok {
		return fail(fmt.Errorf("%T is not a unix connection", c.Conn))
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fail(err)
	}
	var cred *unix.Ucred
	pidfd := -1
	var noPidfd error
	cerr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pidfd, noPidfd = g.peerPidfd(int(fd))
		}
	})
	if err = errors.Join(err, cerr); err != nil {
		return fail(err)
	}
	p := peer{pid: int(cred.Pid), pidfd: pidfd}
	switch {
	case p.pid <= 0:
		if noPidfd == nil {
			p.close()
		}
		return fail(errors.New("its process is not in proxyd's pid namespace"))
	case errors.Is(noPidfd, unix.ENOPROTOOPT):
		if p.pidfd, err = pidfdSince(p.pid, c.accepted); err != nil {
			return fail(err)
		}
	case noPidfd != nil:
		return fail(fmt.Errorf("its process has ended: %w", noPidfd))
	}
	return p, nil
}

// soPeerPidfd is SO_PEERPIDFD of asm-generic/socket.h.
const soPeerPidfd = 77

// peerPidfd gives a pidfd of the process that connected. A kernel before 6.5 says
// ENOPROTOOPT.
func peerPidfd(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeerPidfd)
}

// pidfdSince gives a pidfd of process pid, where the kernel has none to give for a
// connection. If the one that connected has ended, its number may be another's by
// now: one that began after the connection was accepted is not it. What is left is
// a process that began between the connect and the tick in which it was accepted.
func pidfdSince(pid int, accepted uint64) (int, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("its process has ended: %w", err)
	}
	p := peer{pid: pid, pidfd: pidfd}
	began, err := startTime(pid)
	switch {
	case err != nil:
	case !p.lives(): // else what was read is of the process that pidfd holds
		err = errors.New("its process has ended")
	case began > accepted:
		err = fmt.Errorf("its process has ended, and %d is another one's number by now", pid)
	}
	if err != nil {
		p.close()
		return -1, err
	}
	return pidfd, nil
}

// startTime is when a process began, in clock ticks since the boot: field 22 of
// proc_pid_stat(5). The second field, a name in brackets, may hold anything.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: %q", pid, stat)
	}
	began, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return began, nil
}

// bootTicks is the time since the boot as startTime counts it: a tick is USER_HZ
// of the kernel, a hundredth of a second wherever Go runs.
func bootTicks() uint64 {
	var now unix.Timespec
	// It cannot fail for a clock that every kernel has.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return uint64(now.Nano()) / 10_000_000
}

// lives tells whether the process that connected has not ended, so that its
// number is still its own.
func (p peer) lives() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 // readable: it has ended, pidfd_open(2)
}

func (p peer) close() { unix.Close(p.pidfd) }
