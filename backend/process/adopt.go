package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt takes over a process that an earlier proxyd has started and recorded, or
// gives ErrGone. Its output is read on from the FIFO. If it is a child of this
// process, which it is after an exec of proxyd in place, its Exit will be known.
func (d *Driver) Adopt(id Identity, generation uint64, output string) (*Process, error) {
	if d.isClosed() {
		return nil, ErrClosed
	}
	path, err := outputPath(output)
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, err)
	}
	pidfd, err := id.open()
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, err)
	}
	if !launchOver(id, pidfd) {
		unix.Close(pidfd)
		return nil, fmt.Errorf("adopt process %d: %w", id.PID, ErrGone)
	}
	out, err := reopenOutput(id.PID, path, d.writeLines)
	if err != nil {
		d.log.Warn("cannot read output of adopted process", "generation", generation, "pid", id.PID, "error", err)
		out = nil
	} else {
		go out.read()
	}
	s, err := readStat(id.PID)
	child := err == nil && s.ppid == os.Getpid() && s.start == id.StartTime
	if child {
		children.claim(id.PID)
	}
	p := d.newProcess(generation, id, pidfd, child, out)
	_, _ = p.members() // remember them while they can be told by the tree
	return p, nil
}

// launchOver waits until a process is no launch stub: one whose proxyd died
// either ends or, if it was told before, becomes the program. It says whether it
// runs then.
func launchOver(id Identity, pidfd int) bool {
	limit := newLimit(killTime)
	for isStub(id.PID) && !ended(pidfd) {
		if limit.left() == 0 {
			return false
		}
		// Nothing tells of an exec, so look again every millisecond.
		awaitEnd([]int{pidfd}, 1)
	}
	if b, err := commandLine(id.PID); err == nil && len(b) == 0 {
		// It is exiting, its memory is gone already and with it what it was
		// called; or it has wiped that, or its first thread has ended.
		awaitEnd([]int{pidfd}, 1000)
	}
	return !ended(pidfd)
}

func isStub(pid int) bool {
	b, err := commandLine(pid)
	return err == nil && strings.HasPrefix(string(b), launchName+"\x00")
}

// reopenOutput opens the FIFO at path. Where the path is gone, since systemd
// removes a service's runtime directory, it is opened through the process that
// holds it (proc_pid_fd(5)): unread, it would fill up and stop the program.
func reopenOutput(pid int, path string, write func([]byte)) (*output, error) {
	o, err := openOutput(path, path, write)
	if !errors.Is(err, os.ErrNotExist) {
		return o, err
	}
	for _, fd := range []string{"1", "2"} {
		o, err := openOutput(path, "/proc/"+strconv.Itoa(pid)+"/fd/"+fd, write)
		if err != nil {
			continue
		}
		// A shell points its output elsewhere for a moment when it redirects
		// one of its own commands, so it counts what was opened.
		if o.named() == path {
			return o, nil
		}
		_ = o.file.Close()
	}
	return nil, err
}
