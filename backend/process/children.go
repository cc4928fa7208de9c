package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children are those that this process started and has not reaped. The kernel
// keeps them per process, whatever number of Drivers there is, and so does this.
var children = &registry{pids: map[int]bool{}, tracked: map[*Process]bool{}}

type registry struct {
	mu      sync.Mutex
	drivers int
	pids    map[int]bool      // our own children: theirs is the Wait
	tracked map[*Process]bool // not yet cleared
}

// join makes orphans of our descendants come to us, while there is a Driver
// (PR_SET_CHILD_SUBREAPER, prctl(2)).
func (r *registry) join() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drivers == 0 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become child subreaper: %w", err)
		}
	}
	r.drivers++
	return nil
}

func (r *registry) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drivers--; r.drivers == 0 {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
}

// fork starts this very program again under the name of the launch stub, as the
// leader of a group of its own. It is done under the lock, so that nobody takes
// the new child for an orphan. files are raw descriptors, since os.File.Fd
// would make what they share with others blocking. The caller owns pidfd.
func (r *registry) fork(argv, env []string, files []uintptr) (pid, pidfd int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pidfd = -1
	pid, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		return 0, -1, err
	}
	r.pids[pid] = true
	if pidfd < 0 {
		// No other than its parent can free the number, so this is exact.
		if pidfd, err = unix.PidfdOpen(pid, unix.O_NONBLOCK); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			r.reapLocked(pid)
			return 0, -1, fmt.Errorf("open process %d: %w", pid, err)
		}
	}
	if err := unix.SetNonblock(pidfd, true); err != nil { // for the runtime's poller
		_ = unix.Kill(pid, unix.SIGKILL)
		r.reapLocked(pid)
		unix.Close(pidfd)
		return 0, -1, err
	}
	return pid, pidfd, nil
}

// claim makes an existing child of ours one that is waited for by its owner:
// after an upgrade in place, the children of the old image are ours as well.
func (r *registry) claim(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pids[pid] = true
}

// reap waits for a child that has exited and gives up its number. Both happen
// under the lock, so that an orphan with the same number is seen as what it is.
func (r *registry) reap(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reapLocked(pid)
}

func (r *registry) reapLocked(pid int) {
	if !r.pids[pid] {
		return
	}
	delete(r.pids, pid)
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (r *registry) track(p *Process, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.tracked[p] = true
	} else {
		delete(r.tracked, p)
	}
}

func (r *registry) processes() []*Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Process, 0, len(r.tracked))
	for p := range r.tracked {
		list = append(list, p)
	}
	return list
}

func (r *registry) has(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pids[pid]
}

// stranger says whether a process is an orphan of some generation that came to
// us. A descendant of a generation cannot be in our own group; what is there was
// started by other code of this program, which waits for it.
func (r *registry) stranger(s stat) bool {
	return s.ppid == os.Getpid() && s.pgrp != unix.Getpgrp() && !r.has(s.pid)
}

// reapOrphans waits for the orphans that have exited. Each tracked process is
// shown who lives now, while the exited ones still hold their numbers.
func (r *registry) reapOrphans() {
	all, err := processes()
	if err != nil {
		return
	}
	for _, p := range r.processes() {
		p.notice(all)
	}
	for _, s := range all {
		if !s.dead() || !r.stranger(s) {
			continue
		}
		r.mu.Lock()
		if !r.pids[s.pid] { // it may be a new child by now
			_, _ = unix.Wait4(s.pid, nil, unix.WNOHANG|unix.WALL, nil)
		}
		r.mu.Unlock()
	}
}

// childInfo is the part of siginfo_t that waitid(2) fills in.
type childInfo struct {
	signo, errno, code int32
	_                  [(unsafe.Sizeof(uintptr(0)) - 4) / 4]int32 // the union is aligned to a word
	pid                int32
	uid                uint32
	status             int32
}

// peekExit tells how our child ended, without reaping it (WNOWAIT). ok is false
// while it runs.
func peekExit(pidfd int) (e Exit, ok bool) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return Exit{}, ended(pidfd) // ECHILD: somebody else has reaped it
		}
	}
	c := (*childInfo)(unsafe.Pointer(&info))
	if c.signo == 0 {
		return Exit{}, false
	}
	const exited = 1 // CLD_EXITED; the others are CLD_KILLED and CLD_DUMPED
	if c.code == exited {
		return Exit{Known: true, Code: int(c.status)}, true
	}
	return Exit{Known: true, Signal: syscall.Signal(c.status)}, true
}

// limit is a time by which something must be over.
type limit time.Time

func newLimit(milliseconds int) limit {
	return limit(time.Now().Add(time.Duration(milliseconds) * time.Millisecond))
}

// left gives milliseconds for poll(2), never negative, which would mean for ever.
func (l limit) left() int {
	return max(0, int((time.Until(time.Time(l))+time.Millisecond-1)/time.Millisecond))
}
