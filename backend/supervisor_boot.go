package backend

import (
	"context"
	"errors"
	"slices"
	"time"
)

// boot goes on from the durable state: what outlived proxyd is adopted, what
// belongs to nothing is ended.
func (s *Supervisor) boot(ctx context.Context) {
	d := s.cfg.Durable
	if !s.cfg.Known {
		d = s.rebuild(ctx)
	}
	d.Next = max(d.Next, s.cfg.History.Highest()+1)
	for i := range d.Generations {
		r := &d.Generations[i]
		r.Probation = r.Probation && time.Now().Before(r.ProbationEnds)
	}
	s.machine = NewMachine(s.cfg.Policy, d)
	s.heldUntil = d.HeldUntil
	var found []Event
	var keep []uint64
	for _, r := range d.Generations {
		m := s.member(r.ID)
		m.state, m.since, m.drainDeadline, m.plan, m.identity = r.State, r.Since, r.DrainDeadline, r.Plan, r.Identity
		m.probationEnds = r.ProbationEnds
		if m.since.IsZero() {
			m.since = time.Now()
		}
		if len(r.Identity) == 0 {
			continue
		}
		run, err := s.cfg.Driver.Adopt(ctx, Launch{ID: r.ID, Release: r.Release, Plan: r.Plan}, r.Identity)
		var is Event = Adopted{Gen: r.ID}
		if err == nil {
			why, beside := stranded(run)
			if why != "" {
				is = Stranded{Gen: r.ID, Why: why, Beside: beside}
				m.run, m.lastRun = run, run
			} else {
				err = s.open(r.ID, m, run)
			}
		}
		if err != nil {
			if !errors.Is(err, ErrGone) {
				s.log.Error("cannot take over a running generation", "generation", r.ID, "error", err)
			}
			m.run, m.identity = nil, nil
			found = append(found, Lost{Gen: r.ID})
			continue
		}
		keep = append(keep, r.ID)
		found = append(found, is)
		s.attend(r.ID, m)
	}
	if err := s.cfg.Driver.Sweep(ctx, keep); err != nil {
		s.log.Error("cannot end left-over processes", "error", err)
	}
	for _, e := range found {
		s.step(e)
	}
	s.step(Booted{Release: s.cfg.Release})
	if d.Held && !d.HeldUntil.IsZero() {
		s.step(HoldRequested{Limit: Delay{After: max(time.Until(d.HeldUntil), time.Millisecond)}})
	}
}

// stranded tells why a run can be given no connections; empty: it can.
func stranded(run Run) (why string, beside bool) {
	if s, ok := run.(Strander); ok {
		return s.Stranded()
	}
	return "", false
}

// rebuild makes a state of what runs, for when none can be read. The generation
// that history saw made current last is taken for the current one, else the one
// with the highest number.
func (s *Supervisor) rebuild(ctx context.Context) Durable {
	found, err := s.cfg.Driver.Found(ctx)
	if err != nil {
		s.log.Error("cannot look for running generations", "error", err)
	}
	var d Durable
	for _, f := range found {
		if f.Release == "" { // its program has overwritten its environment
			f.Release = s.cfg.History.release(f.ID)
		}
		plan, err := s.cfg.Driver.Plan(f.ID, f.Release)
		if err != nil {
			s.log.Error("cannot plan a found generation", "generation", f.ID, "error", err)
			continue
		}
		d.Generations = append(d.Generations, DurableGeneration{
			ID: f.ID, Release: f.Release, State: Draining, Origin: string(originStage), Plan: plan, Identity: f.Identity,
		})
		d.Current = max(d.Current, f.ID)
		d.Next = max(d.Next, f.ID+1)
	}
	runs := func(id uint64) bool {
		return slices.ContainsFunc(d.Generations, func(r DurableGeneration) bool { return r.ID == id })
	}
	for _, e := range s.cfg.History.Last(0) {
		if e.Event == WhatMoved && runs(e.Gen) {
			d.Current = e.Gen
		}
		if (e.Event == WhatPromoted || e.Event == WhatReverted) && runs(e.Gen) {
			d.Current, d.Previous = e.Gen, 0
			if e.From != e.Gen && runs(e.From) {
				d.Previous = e.From
			}
		}
	}
	for i := range d.Generations {
		if d.Generations[i].ID == d.Current {
			d.Generations[i].State = Current
			s.log.Warn("the state is lost: a running generation is taken for the current one", "generation", d.Current)
		}
	}
	return d
}
