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
	others, err := d.stopOthers(ctx, units)
	late, cancel := context.WithTimeout(ctx, sweepWait)
	defer cancel()
	ended, leaving, sweepErr := d.units.Sweep(ctx, units, sweepWait)
	err = errors.Join(err, sweepErr)
	for _, unit := range others {
		gone, otherErr := d.seeOff(ctx, late, unit)
		err = errors.Join(err, otherErr)
		if gone {
			ended = append(ended, unit.Name())
		} else {
			leaving = append(leaving, unit.Name())
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

// stopOthers has systemd stop the runs whose units today's template does not name and
// that units does not tell to keep, by the units' own rules. It waits for none, and
// gives all that ran.
func (d *systemdDriver) stopOthers(ctx context.Context, units map[string]bool) (others []*systemd.Unit, err error) {
	for _, n := range d.readNotes() {
		name := n.Identity.Unit
		if d.units.Names(name) || units[name] {
			continue
		}
		unit := d.watched(name) // where it was taken over, and then not wanted
		if unit == nil {
			var adoptErr error
			if unit, adoptErr = d.units.Adopt(ctx, n.Identity.Identity); adoptErr != nil {
				if !errors.Is(adoptErr, systemd.ErrGone) {
					err = errors.Join(err, adoptErr)
				}
				continue
			}
		}
		others = append(others, unit)
		err = errors.Join(err, d.explainEnd(unit, unit.Stop()))
	}
	return others, err
}

// seeOff waits until nothing runs of a unit that was told to stop, or late ends, and
// tells whether it has ended.
func (d *systemdDriver) seeOff(ctx, late context.Context, unit *systemd.Unit) (gone bool, err error) {
	select {
	case <-unit.Done():
	case <-late.Done():
		return false, ctx.Err()
	}
	moment, cancel := context.WithTimeout(ctx, time.Second) // late may have come while others were waited for
	defer cancel()
	err = unit.Finish(moment)
	if err != nil && moment.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, d.explainEnd(unit, err)
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
