package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StartError is a start that systemd refused or could not begin.
type StartError struct {
	Unit  string
	Err   error
	Lines []string // the journal's last of the unit
}

func (e *StartError) Error() string { return fmt.Sprintf("start unit %s: %v", e.Unit, e.Err) }
func (e *StartError) Unwrap() error { return e.Err }

// Start starts a generation's unit. It calls record, which is to keep the
// identity, twice: before systemd is asked, and as soon as the invocation is
// known; if record fails the unit is stopped.
//
// It returns when there is a main process, or when the unit has started without
// one or has ended: a unit that failed is given, with Done closed, and has the
// reason and the lines. The error is a *StartError where there was nothing to
// begin with (no such unit, a bad one, not permitted, already running). After an
// error, and when ctx ends before, nothing of the unit runs, or there is a
// *LeftError in it.
func (d *Driver) Start(ctx context.Context, generation uint64, release string, record func(Identity) error) (*Unit, error) {
	name, err := d.template.Unit(generation, release)
	if err != nil {
		return nil, err
	}
	return d.StartUnit(ctx, name, record)
}

// StartUnit is Start by the unit's name, for a generation that was named by
// another template: see Template.Unit.
func (d *Driver) StartUnit(ctx context.Context, name string, record func(Identity) error) (*Unit, error) {
	u, err := d.claim(name)
	if err != nil {
		return nil, &StartError{Unit: name, Err: err}
	}
	u.since = time.Now()
	if asked, err := d.begin(ctx, u, record); err != nil {
		if asked {
			err = d.giveUp(ctx, u, err)
		}
		u.drop()
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errRecord) {
			return nil, fmt.Errorf("start unit %s: %w", name, err)
		}
		return nil, &StartError{Unit: name, Err: err, Lines: d.journal(name, u.since)}
	}
	go u.watch()
	select {
	case <-u.begun:
	case <-u.watched:
	case <-ctx.Done():
	}
	switch {
	case closed(u.begun):
		if err = record(u.Identity()); err == nil {
			return u, nil
		}
		err = fmt.Errorf("%w: %w", errRecord, err)
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = ErrClosed
	}
	return nil, d.giveUp(ctx, u, fmt.Errorf("start unit %s: %w", name, err))
}

// giveUpLimit is how long a Start that fails waits for the end of what it began,
// which takes no longer where systemd can be asked.
const giveUpLimit = 5 * time.Second

// giveUp ends what a Start that fails with why has begun, whatever became of ctx:
// the caller has nothing to end it with.
func (d *Driver) giveUp(ctx context.Context, u *Unit, why error) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpLimit)
	defer cancel()
	if err := d.finish(late, u.name, 0, nil); err != nil {
		return d.endLater(u, errors.Join(why, err))
	}
	return why
}

var errRecord = errors.New("its identity could not be kept")

// begin asks systemd to start u, and makes sure that it took it. With an error,
// asked says that systemd may have taken it all the same.
func (d *Driver) begin(ctx context.Context, u *Unit, record func(Identity) error) (asked bool, err error) {
	before, err := d.link.read(ctx, u.name)
	if err != nil {
		return false, err
	}
	if before.running() || before.job {
		return false, ErrRunning
	}
	switch outlasted, err := d.outlasted(ctx, u.name, before); {
	case err != nil:
		return false, err
	case outlasted:
		return false, fmt.Errorf("%w: systemd calls it ended, and not all of its processes have (systemctl kill --signal=KILL %s)", ErrRunning, u.name)
	}
	if before.kind == oneShot {
		return false, errOneShot
	}
	if err := record(Identity{Unit: u.name}); err != nil {
		return false, fmt.Errorf("%w: %w", errRecord, err)
	}
	if before.active == "failed" {
		// Else a run that failed counts against StartLimitBurst=.
		if err := d.resetFailed(ctx, u.name); err != nil {
			return false, err
		}
	}
	u.before, u.kind = before, before.kind
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := d.link.once(ctx, func(ctx context.Context, b bus) (err error) {
			u.job, err = b.start(ctx, u.name)
			return err
		})
		if err != nil && ctx.Err() != nil {
			return true, ctx.Err()
		}
		if !errors.Is(err, errLost) && !errors.Is(err, errAway) {
			return asked, err
		}
		asked = true
		now, readErr := d.link.read(ctx, u.name)
		if readErr != nil {
			return true, readErr
		}
		if now.job || now.running() || now.invocation != u.before.invocation {
			return true, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}
