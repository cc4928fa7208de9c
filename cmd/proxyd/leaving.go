package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/seed8fae2174/proxyd/systemd"
)

// A unit that is no generation any more is told to end when proxyd starts, and has
// TimeoutStopSec= for that. Programs there are that go on accepting for a while, so
// that whoever balances over them can look elsewhere. Clients wait for proxyd
// meanwhile, so it goes on; but a member of the listeners' groups that such a unit has
// is lent to nobody until the unit has ended, by this proxyd or the next.

// withhold keeps the member of a run from being lent, as long as it may accept from
// it. It tells whether it has one of today's.
func (p *directPath) withhold(known socketNote) (bool, error) {
	if known.Member == 0 || p.isMember(known) != nil {
		return false, nil
	}
	if p.direct != nil {
		return true, p.direct.Withhold(known.Member)
	}
	// All is relayed: the relay has the first of each group, and the kernel is to give
	// new connections to no other that a leaving run may have.
	for _, g := range p.groups {
		if tcp, ok := g.address.(*net.TCPAddr); ok && !p.keepApart(g, tcp) {
			return false, fmt.Errorf("clients of listener %q may come to what has not ended yet", g.name)
		}
	}
	return false, nil
}

// readmit ends what withhold did.
func (p *directPath) readmit(known socketNote) error {
	if p.direct == nil {
		return nil
	}
	return p.direct.Readmit(known.Member)
}

// disown forgets that a generation has a member: its next run gets another.
func (s *generationSockets) disown(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[id]; k != nil && k.member != 0 {
		delete(s.kept, id)
	}
}

const leavingName = "leaving.json"

func (d *systemdDriver) leavingPath() string { return filepath.Join(d.sockets.dir, leavingName) }

// readLeaving gives the runs that were leaving when the last proxyd ended.
func (d *systemdDriver) readLeaving() (notes []runNote) {
	b, err := os.ReadFile(d.leavingPath())
	if err == nil {
		err = json.Unmarshal(b, &notes)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("cannot read which units are leaving", "error", err)
	}
	return notes
}

// saveLeaving writes down those that leave now. mu is held.
func (d *systemdDriver) saveLeaving() {
	if len(d.leaving) == 0 {
		if err := os.Remove(d.leavingPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("cannot forget which units were leaving", "error", err)
		}
		return
	}
	b, err := json.Marshal(d.leaving)
	if err == nil {
		err = renameio.WriteFile(d.leavingPath(), b, 0o600)
	}
	if err != nil {
		d.log.Warn("cannot note which units are leaving: the next proxyd may lend what they accept from", "error", err)
	}
}

// withholdLeaving withholds the members of all runs that are known, live, and are none
// of keep, before they are told to end. It writes them down: what else is known of
// them is removed soon.
func (d *systemdDriver) withholdLeaving(ctx context.Context, keep []uint64) {
	notes := append(d.readNotes(), d.readLeaving()...)
	now, err := d.units.Found(ctx)
	if err != nil {
		d.log.Warn("cannot tell the runs of units apart", "error", err) // their names must do
	}
	var leaving []runNote
	for _, n := range notes {
		d.mu.Lock()
		run := d.runs[n.Identity.Unit]
		d.mu.Unlock()
		known := slices.ContainsFunc(leaving, n.is)
		if n.Identity.Member == 0 || known || run != nil && slices.Contains(keep, run.launch.ID) {
			continue
		}
		if errors.Is(d.units.Lives(ctx, n.Identity.Identity), systemd.ErrGone) {
			continue
		}
		has, err := d.sockets.direct.withhold(n.Identity.socketNote)
		if err != nil {
			d.log.Error("clients may come to a unit that is no generation any more, until it has ended", "unit", n.Identity.Unit, "error", err)
		}
		if !has {
			continue
		}
		if run != nil {
			d.sockets.disown(run.launch.ID)
		}
		if i := slices.IndexFunc(now, func(f systemd.Found) bool { return f.Identity.Unit == n.Identity.Unit }); i >= 0 && n.Identity.Invocation == "" {
			n.Identity.Invocation = now[i].Identity.Invocation
		}
		leaving = append(leaving, n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = leaving
	d.saveLeaving()
}

// is says that two notes are of one run.
func (n runNote) is(other runNote) bool {
	a, b := n.Identity.Identity, other.Identity.Identity
	return a.Unit == b.Unit && (a.Invocation == b.Invocation || a.Invocation == "" || b.Invocation == "")
}

// readmitLeft has each member that is withheld given back once its run has ended.
func (d *systemdDriver) readmitLeft() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.leaving {
		d.calls.Add(1)
		go d.awaitLeaving(n)
	}
}

// leavingPoll is how often systemd is asked for the end of a unit that is leaving.
const leavingPoll = time.Second

// awaitLeaving gives back the member of a run when nothing of it runs. It ends with
// that or with the driver; close waits for it.
func (d *systemdDriver) awaitLeaving(n runNote) {
	defer d.calls.Done()
	for told := false; ; {
		ctx, cancel := context.WithTimeout(context.Background(), clearLimit)
		err := d.units.Lives(ctx, n.Identity.Identity)
		cancel()
		switch {
		case errors.Is(err, systemd.ErrGone):
			if told {
				d.log.Info("a unit that was no generation any more has ended, its sockets can be used again", "unit", n.Identity.Unit)
			}
			if err := d.sockets.direct.readmit(n.Identity.socketNote); err != nil {
				d.log.Error("clients that wait in a queue are not served", "error", err)
			}
			d.mu.Lock()
			d.leaving = slices.DeleteFunc(d.leaving, n.is)
			d.saveLeaving()
			d.mu.Unlock()
			return
		case errors.Is(err, systemd.ErrClosed):
			return
		case !told:
			told = true
			d.log.Info("the sockets of a unit are used for no other before it has ended", "unit", n.Identity.Unit, "member", n.Identity.Member)
		}
		select {
		case <-time.After(leavingPoll):
		case <-d.ending:
			return
		}
	}
}
