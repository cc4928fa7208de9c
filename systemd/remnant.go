package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// remnantGrace is what processes get from TERM to KILL that outlast their unit.
const remnantGrace = 5 * time.Second

// remnant ends the processes that run on in the control group of a unit which
// systemd calls ended: those that the unit's rules spare (KillMode=,
// SendSIGKILL=), or that did not end by KILL. systemd looks after them no more: it
// sends them nothing by itself and does not tell of their end, but it keeps the unit
// until they have gone, and Kill reaches them (unit_may_gc and unit_kill_common in
// its src/core/unit.c). They may hold the unit's sockets, so it has not ended.
type remnant struct {
	driver *Driver
	name   string
	tell   func(pids []int) // of those that are left; nil: nobody is told
	pids   []int
	began  time.Time // when they were told to end; zero: there were none
	pause  time.Duration
}

// end tells what is left to end, and says whether nothing is. Where something is it
// is called again after pause.
func (r *remnant) end(ctx context.Context) (none bool, err error) {
	pids, err := r.driver.processes(ctx, r.name)
	if err != nil {
		return false, err
	}
	if r.tell != nil {
		r.tell(pids)
	}
	if len(pids) == 0 {
		return true, nil
	}
	signal := syscall.SIGKILL
	switch {
	case r.began.IsZero():
		signal = syscall.SIGTERM
		r.began, r.pause = time.Now(), retryMin
		r.driver.config.Log.Warn("processes outlast their unit and are told to end; KillMode=control-group would have ended them with it",
			"unit", r.name, "processes", pids)
	case time.Since(r.began) < remnantGrace:
		signal = 0
	case !slices.Equal(pids, r.pids):
		r.driver.config.Log.Warn("processes that outlast their unit are killed", "unit", r.name, "processes", pids)
		r.pids = pids
	}
	r.pause = min(2*r.pause, retryMax)
	if signal == 0 {
		return false, nil
	}
	return false, r.driver.signalAll(ctx, r.name, signal)
}

// processes gives those of a unit's control group, with all below it. A unit that
// systemd has forgotten has none: it keeps those that have.
func (d *Driver) processes(ctx context.Context, name string) (pids []int, err error) {
	err = d.link.again(ctx, func(ctx context.Context, b bus) (err error) {
		pids, err = b.processes(ctx, name)
		return err
	})
	if errors.Is(err, errNoUnit) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list processes of unit %s: %w", name, err)
	}
	return pids, nil
}

// outlasted tells whether there are processes of a unit that systemd calls ended.
func (d *Driver) outlasted(ctx context.Context, name string, s state) (bool, error) {
	if s.running() || s.active == "" {
		return false, nil
	}
	pids, err := d.processes(ctx, name)
	return len(pids) > 0, err
}

// leave keeps which processes outlast the unit, for Left.
func (u *Unit) leave(pids []int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left = pids
}

// Left says which processes outlast the unit, as Clear or Finish saw them last; "" is
// none.
func (u *Unit) Left() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	const most = 8
	if len(u.left) == 0 {
		return ""
	}
	list := strings.Trim(fmt.Sprint(u.left[:min(len(u.left), most)]), "[]")
	list = strings.ReplaceAll(list, " ", ", ")
	if len(u.left) > most {
		list += " and others"
	}
	if len(u.left) == 1 {
		return fmt.Sprintf("its main process has ended, and another process of its unit has not (%s)", list)
	}
	return fmt.Sprintf("its main process has ended, and %d other processes of its unit have not (%s)", len(u.left), list)
}
