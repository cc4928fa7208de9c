package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed8fae2174/proxyd/systemd"
)

// Sweep ends those of the template's units that an earlier proxyd of this service
// has started and that belong to none of keep, and removes what was left of them.
// A unit is only known as such by its note, or by the durable state: all others of
// the template may be somebody else's, another service's or the operator's own.
func (d *systemdDriver) Sweep(ctx context.Context, keep []uint64) error {
	defer d.settle.Do(func() { close(d.swept) })
	d.withholdLeaving(ctx, keep)
	defer d.readmitLeft()
	units := map[string]bool{}
	d.mu.Lock()
	for name, run := range d.runs {
		units[name] = slices.Contains(keep, run.launch.ID)
	}
	d.mu.Unlock()
	foreign, err := d.foreignUnits(ctx)
	if err != nil {
		return err
	}
	for _, name := range foreign {
		units[name] = true
	}
	ended, leaving, err := d.units.Sweep(ctx, units, sweepWait)
	for _, n := range d.readNotes() {
		name := n.Identity.Unit
		if d.units.Names(name) || units[name] {
			continue
		}
		lived, gone, otherErr := d.endOther(ctx, n.Identity.Identity)
		err = errors.Join(err, otherErr)
		switch {
		case lived && gone:
			ended = append(ended, name)
		case lived:
			leaving = append(leaving, name)
		}
	}
	if len(ended) > 0 {
		d.log.Warn("ended units that are no generations any more", "units", ended)
	}
	if len(leaving) > 0 {
		d.log.Warn("units that are no generations any more take their time to end", "units", leaving)
	}
	return errors.Join(err, d.sockets.sweep(keep, d.noted(ctx)), d.sweepEnvironments())
}

// sweepWait is how long clients wait at the start of proxyd for units to end that
// are no generations any more. Most do so at once. One that lets connections
// finish takes its TimeoutStopSec=, by systemd's hand: it takes no new ones.
const sweepWait = 5 * time.Second

// endOther has systemd stop a run whose unit today's template does not name, by
// the unit's own rules. It tells whether there was one, and whether it has ended
// within sweepWait.
func (d *systemdDriver) endOther(ctx context.Context, id systemd.Identity) (lived, gone bool, err error) {
	unit := d.watched(id.Unit) // where it was taken over, and then not wanted
	if unit == nil {
		unit, err = d.units.Adopt(ctx, id)
	}
	switch {
	case errors.Is(err, systemd.ErrGone):
		return false, true, nil
	case err != nil:
		return false, false, err
	}
	if err := unit.Stop(); err != nil {
		return true, false, d.explainEnd(unit, err)
	}
	select {
	case <-unit.Done():
		return true, true, d.explainEnd(unit, unit.Clear(ctx))
	case <-time.After(sweepWait):
		return true, false, nil
	case <-ctx.Done():
		return true, false, ctx.Err()
	}
}

// noted gives the generations whose notes must stay, for something of them runs:
// the next proxyd is to find it, if this one ends before it does.
func (d *systemdDriver) noted(ctx context.Context) (ids []uint64) {
	for _, n := range d.readNotes() {
		if err := d.units.Lives(ctx, n.Identity.Identity); !errors.Is(err, systemd.ErrGone) {
			ids = append(ids, n.Generation)
		}
	}
	return ids
}

// watched gives a run that is looked after already; nil where there is none.
func (d *systemdDriver) watched(name string) *systemd.Unit {
	d.mu.Lock()
	defer d.mu.Unlock()
	if run := d.runs[name]; run != nil {
		return run.unit
	}
	return nil
}

// explainEnd says of a unit that may not be ended what is often the reason.
func (d *systemdDriver) explainEnd(unit *systemd.Unit, err error) error {
	if !errors.Is(err, systemd.ErrNotPermitted) || d.units.Names(unit.Name()) {
		return err
	}
	template, _, _ := strings.Cut(unit.Name(), "@")
	return fmt.Errorf("%w; backend.unit names another template by now, and the rule may have forgotten %s@: allow that there again, or end the unit yourself (systemctl stop %s)",
		err, template, unit.Name())
}

// foreignUnits lists the units of the template that this service has no note of.
func (d *systemdDriver) foreignUnits(ctx context.Context) (foreign []string, err error) {
	units, err := d.units.Found(ctx)
	if err != nil {
		return nil, err
	}
	notes := d.readNotes()
	for _, u := range units {
		name := u.Identity.Unit
		if !slices.ContainsFunc(notes, func(n runNote) bool { return n.Identity.Unit == name }) {
			foreign = append(foreign, name)
		}
	}
	if len(foreign) > 0 {
		d.log.Info("units of the template that this service has not started are left alone", "units", foreign)
	}
	return foreign, nil
}
