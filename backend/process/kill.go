package process

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// killTime is how long Kill, Clear and Sweep wait at most for what they have
// killed, in milliseconds. Only a process stuck in the kernel takes longer.
const killTime = 10_000

// Kill ends the main process and everything that belongs to it, and returns
// when nothing is left or after 10 s with an error that names what is. Done is
// closed soon after. After Clear it does nothing.
func (p *Process) Kill() error {
	if all, err := processes(); err == nil {
		p.notice(all)
	}
	_ = p.signalGroup(unix.SIGKILL) // the whole group in one instant; the rest follows
	_, err := killAll(p.members)
	if err != nil {
		return fmt.Errorf("kill generation %d: %w", p.generation, err)
	}
	return nil
}

// Clear ends what the main process has left behind, waits for its zombie and
// gives up all descriptors. It waits for Done first. With an error something is
// left, as the kernel holds it or proxyd may not kill it; then nothing was given up,
// and Clear is to be called again. After one without an error it does nothing.
func (p *Process) Clear() error {
	p.clearing.Lock()
	defer p.clearing.Unlock()
	if p.cleared {
		return nil
	}
	select {
	case <-p.done:
	case <-p.driver.closed:
	}
	if p.driver.isClosed() {
		return nil // Close has given up everything
	}
	killed, err := killAll(p.members)
	for _, s := range killed {
		p.driver.log.Info("ended left-over process", "generation", p.generation, "pid", s.pid)
	}
	if err != nil {
		return fmt.Errorf("clear generation %d: %w", p.generation, err)
	}
	children.reapOrphans()
	p.release()
	p.cleared = true
	return nil
}

// killAll kills what list gives until it gives nothing, and tells whom.
func killAll(list func() ([]stat, error)) (killed []stat, err error) {
	limit := newLimit(killTime)
	refused := map[int]error{}
	for {
		members, err := list()
		if err != nil {
			return killed, err
		}
		members = slices.DeleteFunc(members, func(s stat) bool { return refused[s.pid] != nil })
		if len(members) == 0 {
			break
		}
		if limit.left() == 0 {
			return killed, fmt.Errorf("%w: %s", errLeft, pids(members))
		}
		var pidfds []int
		for _, s := range members {
			pidfd, err := killOne(s)
			if err != nil {
				refused[s.pid] = fmt.Errorf("kill process %d: %w", s.pid, err)
			}
			if pidfd >= 0 {
				pidfds = append(pidfds, pidfd)
				if !slices.ContainsFunc(killed, func(k stat) bool { return k.pid == s.pid && k.start == s.start }) {
					killed = append(killed, s)
				}
			}
		}
		awaitEnd(pidfds, limit.left())
		for _, pidfd := range pidfds {
			unix.Close(pidfd)
		}
	}
	var errs []error
	for _, err := range refused {
		errs = append(errs, err)
	}
	return killed, errors.Join(errs...)
}

// killOne kills the process that s was read from, and no other that has its
// number by now. The pidfd, -1 where it is gone, is the caller's.
func killOne(s stat) (pidfd int, err error) {
	id, err := identify(s)
	if err != nil {
		return -1, err
	}
	pidfd, err = id.open()
	if errors.Is(err, ErrGone) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		unix.Close(pidfd)
		return -1, err
	}
	return pidfd, nil
}

func pids(list []stat) string {
	text := ""
	for i, s := range list {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d (%s)", s.pid, command(s.pid))
	}
	return text
}
