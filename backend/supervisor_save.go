package backend

import (
	"time"
)

// stamp notes when each generation came into its state: the Machine has no
// clock. A switch is not noted before it came about, because one that fails puts
// the states back.
func (s *Supervisor) stamp() {
	if s.machine.pending != nil {
		return
	}
	for id, g := range s.machine.gens {
		m := s.member(id)
		if !g.probation {
			m.probationEnds = time.Time{}
		}
		if m.state != g.state {
			m.state, m.since = g.state, time.Now()
			if g.state != Draining {
				m.drainDeadline = time.Time{}
			}
		}
	}
}

// durable gives the whole durable state, stamped.
func (s *Supervisor) durable() Durable {
	d := s.machine.durable()
	d.Service = s.cfg.Service
	if d.Held {
		d.HeldUntil = s.heldUntil
	}
	for i := range d.Generations {
		r := &d.Generations[i]
		m := s.member(r.ID)
		r.Since, r.DrainDeadline, r.Plan, r.Identity = m.since, m.drainDeadline, m.plan, m.identity
		if r.State != m.state { // a switch is being made
			r.Since, r.DrainDeadline = time.Now(), time.Time{}
		}
		switch {
		case !r.Probation:
		case m.probationEnds.IsZero(): // it begins with that switch
			r.ProbationEnds = time.Now().Add(s.cfg.Policy.Probation)
		default:
			r.ProbationEnds = m.probationEnds
		}
	}
	return d
}

// saveAgain is when a state that could not be written is written again, where no
// change did that before: a revert on a full disk must not be forgotten for ever.
const saveAgain = 30 * time.Second

func (s *Supervisor) save() {
	if s.again != nil {
		s.again.Stop()
		s.again = nil
	}
	memory, err := s.cfg.Store.Save(s.durable())
	if err != nil {
		s.log.Error("cannot write the state", "error", err, "kept_in_runtime_directory", memory)
		s.again = time.AfterFunc(saveAgain, func() { _ = s.call(s.ctx, s.save) })
	}
}
