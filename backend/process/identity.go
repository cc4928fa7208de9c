package process

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Identity names one process for ever: a pid alone is given away again after
// its process has ended, and start times begin anew with each boot.
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // field 22 of proc_pid_stat(5)
	BootID    string `json:"boot_id"`    // /proc/sys/kernel/random/boot_id
}

// bootID is read once: it cannot change under a running process.
var bootID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
})

func identify(s stat) (Identity, error) {
	boot, err := bootID()
	return Identity{PID: s.pid, StartTime: s.start, BootID: boot}, err
}

// Open gives a pidfd of the process, to be closed by the caller, or ErrGone.
func (id Identity) Open() (pidfd int, err error) { return id.open() }

// open gives a pidfd of the very process that id names, to be closed by the
// caller, or ErrGone. The descriptor is opened first and the start time compared
// after: whatever the number means later, the descriptor stays with the process
// that was compared, if that one still lives after the comparison.
func (id Identity) open() (pidfd int, err error) {
	boot, err := bootID()
	if err != nil {
		return -1, err
	}
	if id.PID <= 0 || id.BootID != boot {
		return -1, ErrGone
	}
	pidfd, err = unix.PidfdOpen(id.PID, unix.O_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return -1, ErrGone // the latter two: the number is a mere thread's now
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	s, err := readStat(id.PID)
	if err != nil || s.start != id.StartTime || s.dead() || ended(pidfd) {
		unix.Close(pidfd)
		return -1, ErrGone
	}
	return pidfd, nil
}

// Lives gives ErrGone where the process has ended, or is of an earlier boot.
func (id Identity) Lives() error {
	pidfd, err := id.open()
	if err != nil {
		return err
	}
	return unix.Close(pidfd)
}

// ended says whether the process of a pidfd has exited (pidfd_open(2): it then
// becomes readable).
func ended(pidfd int) bool { return awaitEnd([]int{pidfd}, 0) }

// awaitEnd waits until all processes have exited, at most so many milliseconds.
func awaitEnd(pidfds []int, milliseconds int) bool {
	limit := newLimit(milliseconds)
	for _, fd := range pidfds {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, limit.left())
			if n > 0 {
				break
			}
			if err == nil || !errors.Is(err, unix.EINTR) {
				return false
			}
		}
	}
	return true
}
