package systemd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Sweep has systemd stop every unit of the template that keep does not name, by
// the unit's own rules: what is in flight there has TimeoutStopSec= to finish. It
// waits for their ends, all at once and at most as long as wait, and gives the
// names of those that have ended and of those that are leaving, whose end is seen to
// as long as the Driver lives. Two services must not share a template.
func (d *Driver) Sweep(ctx context.Context, keep map[string]bool, wait time.Duration) (ended, leaving []string, err error) {
	found, err := d.Found(ctx)
	if err != nil {
		return nil, nil, err
	}
	var strays []string
	for _, f := range found {
		if keep[f.Identity.Unit] {
			continue
		}
		if stopErr := d.stop(ctx, f.Identity.Unit); stopErr != nil {
			err = errors.Join(err, stopErr)
			continue
		}
		strays = append(strays, f.Identity.Unit)
	}
	late, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for _, name := range strays {
		gone, endErr := d.seeOff(ctx, late, name)
		switch {
		case endErr != nil:
			err = errors.Join(err, endErr)
		case gone:
			ended = append(ended, name)
		default:
			leaving = append(leaving, name)
			d.seeOffLater(name)
		}
	}
	return ended, leaving, err
}

// seeOffLater ends what outlasts a unit that has not ended yet.
func (d *Driver) seeOffLater(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() == nil {
		d.running.Add(1)
		go d.seeingOff(name)
	}
}

// seeingOff ends when nothing of the unit runs, or with Close, which waits for it.
func (d *Driver) seeingOff(name string) {
	defer d.running.Done()
	if _, err := d.seeOff(d.life, d.life, name); err != nil && d.life.Err() == nil {
		d.config.Log.Warn("cannot end what is left of a unit", "unit", name, "error", err)
	}
}

// seeOff waits until nothing runs of a unit that is being stopped, or late ends,
// and tells whether it has ended. A unit that failed is forgotten then.
func (d *Driver) seeOff(ctx, late context.Context, name string) (gone bool, err error) {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	left := remnant{driver: d, name: name}
	for {
		pause := d.config.Poll
		s, err := d.link.read(ctx, name)
		if err != nil {
			return false, err
		}
		if !s.running() && !s.job {
			none, err := left.end(ctx)
			if err != nil {
				return false, err
			}
			if none {
				return true, d.forget(ctx, name, s)
			}
			pause = left.pause
		}
		select {
		case <-w.wake:
		case <-time.After(pause):
		case <-late.Done():
			return false, ctx.Err()
		}
	}
}

// byItsRules is a grace that has no end.
const byItsRules = time.Duration(-1)

// finish has systemd stop a unit, with KILL after grace, and waits until nothing
// of it runs. A unit that failed is forgotten then. tell, where not nil, is told of
// the processes that outlast it.
func (d *Driver) finish(ctx context.Context, name string, grace time.Duration, tell func(pids []int)) error {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	asked := false
	var late <-chan time.Time
	if grace != byItsRules {
		late = time.After(grace)
	}
	left := remnant{driver: d, name: name, tell: tell}
	for {
		pause := d.config.Poll
		s, err := d.link.read(ctx, name)
		if err != nil {
			return err
		}
		if !s.running() && !s.job {
			none, err := left.end(ctx)
			if err != nil {
				return err
			}
			if none {
				return d.forget(ctx, name, s)
			}
			pause = left.pause
		} else if !asked {
			// Queued first, so that Restart= does not hold when it ends.
			if err := d.stop(ctx, name); err != nil {
				return err
			}
			asked = true
		}
		select {
		case <-late:
			if err := d.kill(ctx, name); err != nil {
				return err
			}
			late = time.After(killAgain) // what forked meanwhile may have got away
		case <-w.wake:
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("end unit %s: %w", name, ctx.Err())
		}
	}
}

// killAgain is when what a KILL has not ended gets another one.
const killAgain = time.Second

// forget has systemd forget a unit that has failed, of which nothing is left.
func (d *Driver) forget(ctx context.Context, name string, s state) error {
	if s.active != "failed" {
		return nil
	}
	return d.resetFailed(ctx, name)
}

// resetFailed has systemd forget that a unit failed, and how often.
func (d *Driver) resetFailed(ctx context.Context, name string) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error { return b.resetFailed(ctx, name) })
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("reset unit %s: %w", name, err)
	}
	return nil
}

// stop queues a stop job: with one, Restart= of the unit does not hold.
func (d *Driver) stop(ctx context.Context, name string) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error {
		_, err := b.stop(ctx, name)
		return err
	})
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("stop unit %s: %w", name, err)
	}
	return nil
}

// kill ends all processes of a unit.
func (d *Driver) kill(ctx context.Context, name string) error {
	return d.signalAll(ctx, name, syscall.SIGKILL)
}

func (d *Driver) signalAll(ctx context.Context, name string, signal syscall.Signal) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error { return b.kill(ctx, name, "all", int32(signal)) })
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("kill unit %s: %w", name, err)
	}
	return nil
}
