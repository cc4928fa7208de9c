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
// error, and when ctx ends before, nothing of the unit runs.
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
	if err := d.begin(ctx, u, record); err != nil {
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
	return nil, errors.Join(fmt.Errorf("start unit %s: %w", name, err), d.giveUp(ctx, name))
}

// giveUp ends what a Start that fails has begun, whatever became of ctx: the
// caller has nothing to end it with.
func (d *Driver) giveUp(ctx context.Context, name string) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	return d.finish(late, name, 0, nil)
}

var errRecord = errors.New("its identity could not be kept")

// begin asks systemd to start u, and makes sure that it took it.
func (d *Driver) begin(ctx context.Context, u *Unit, record func(Identity) error) error {
	before, err := d.link.read(ctx, u.name)
	if err != nil {
		return err
	}
	if before.running() || before.job {
		return ErrRunning
	}
	switch outlasted, err := d.outlasted(ctx, u.name, before); {
	case err != nil:
		return err
	case outlasted:
		return fmt.Errorf("%w: systemd calls it ended, and not all of its processes have (systemctl kill --signal=KILL %s)", ErrRunning, u.name)
	}
	if before.kind == oneShot {
		return errOneShot
	}
	if err := record(Identity{Unit: u.name}); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	if before.active == "failed" {
		// Else a run that failed counts against StartLimitBurst=.
		if err := d.resetFailed(ctx, u.name); err != nil {
			return err
		}
	}
	u.before, u.kind = before, before.kind
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := d.link.once(ctx, func(ctx context.Context, b bus) (err error) {
			u.job, err = b.start(ctx, u.name)
			return err
		})
		if err != nil && ctx.Err() != nil { // systemd may have taken it all the same
			return errors.Join(ctx.Err(), d.giveUp(ctx, u.name))
		}
		if !errors.Is(err, errLost) && !errors.Is(err, errAway) {
			return err
		}
		// It may have been taken all the same.
		now, readErr := d.link.read(ctx, u.name)
		if readErr != nil {
			return readErr
		}
		if now.job || now.running() || now.invocation != u.before.invocation {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
