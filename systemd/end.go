package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Sweep has systemd stop every unit of the template that keep does not name, by
// the unit's own rules: what is in flight there has TimeoutStopSec= to finish. It
// waits for their ends, all at once and at most as long as wait, and gives the
// names of those that have ended and of those that are leaving, whose end systemd
// sees to. Two services must not share a template.
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
		}
	}
	return ended, leaving, err
}

// seeOff waits until nothing runs of a unit that is being stopped, or late ends,
// and tells whether it has ended. A unit that failed is forgotten then.
func (d *Driver) seeOff(ctx, late context.Context, name string) (gone bool, err error) {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	for {
		s, err := d.link.read(ctx, name)
		if err != nil {
			return false, err
		}
		if !s.running() && !s.job {
			if s.active == "failed" {
				return true, d.resetFailed(ctx, name)
			}
			return true, nil
		}
		select {
		case <-w.wake:
		case <-time.After(d.config.Poll):
		case <-late.Done():
			return false, ctx.Err()
		}
	}
}

// finish has systemd stop a unit, with KILL after grace, and waits until nothing
// of it runs. A unit that failed is forgotten then.
func (d *Driver) finish(ctx context.Context, name string, grace time.Duration) error {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	asked := false
	late := time.After(grace)
	for {
		s, err := d.link.read(ctx, name)
		if err != nil {
			return err
		}
		if !s.running() && !s.job {
			if s.active == "failed" {
				return d.resetFailed(ctx, name)
			}
			return nil
		}
		if !asked {
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
		case <-w.wake:
		case <-time.After(d.config.Poll):
		case <-ctx.Done():
			return fmt.Errorf("end unit %s: %w", name, ctx.Err())
		}
	}
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
	err := d.link.again(ctx, func(ctx context.Context, b bus) error { return b.kill(ctx, name, "all", sigkill) })
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("kill unit %s: %w", name, err)
	}
	return nil
}
