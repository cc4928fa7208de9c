package backend

import (
	"cmp"
	"context"
	"time"
)

// ServiceState is the state of the whole service.
type ServiceState string

// The states of a service.
const (
	ServiceStarting ServiceState = "starting" // no client was served yet
	ServiceServing  ServiceState = "serving"
	ServiceHeld     ServiceState = "held"
	ServiceWaiting  ServiceState = "waiting" // nothing can serve, clients queue
)

// Status is what the service looks like at one moment.
type Status struct {
	Service     string
	State       ServiceState
	Current     uint64
	Previous    uint64
	HeldUntil   time.Time
	Busy        bool // a stage, promote, revert or move is in progress
	Generations []GenerationStatus
}

// GenerationStatus is one generation in a Status. Zero times are not set.
type GenerationStatus struct {
	ID            uint64
	Release       string
	State         State
	Reason        string
	Notice        string // what it last said of itself (STATUS=)
	PID           int
	Unit          string
	Since         time.Time
	DrainDeadline time.Time
	KillAt        time.Time // while it is Stopping: when it is killed, or was
	Counts        Counts
}

// Status gives the state of the service, or ctx's error where the Supervisor does
// not get to it, or not to its end.
func (s *Supervisor) Status(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	select {
	case s.calls <- func() { answer <- s.status() }:
	case <-s.quit:
		return Status{}, ErrEnded
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
	select {
	case st := <-answer:
		return st, nil
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

func (s *Supervisor) status() Status {
	m := s.machine
	st := Status{Service: s.cfg.Service, Current: m.current, Previous: m.previous, HeldUntil: s.heldUntil, Busy: m.op != nil}
	current := m.gens[m.current]
	switch {
	case m.held:
		st.State = ServiceHeld
	case current != nil && current.process == processUp && !m.closing && !m.leaving:
		st.State = ServiceServing
	case !s.served:
		st.State = ServiceStarting
	default:
		st.State = ServiceWaiting
	}
	for _, g := range m.sorted() {
		mem := s.member(g.id)
		gs := GenerationStatus{
			ID: g.id, Release: g.release, State: g.state, Reason: g.reason, Notice: mem.notice,
			Since: mem.since, DrainDeadline: mem.drainDeadline,
			Counts: s.cfg.Router.Counts(g.id),
		}
		if g.state == Stopping {
			gs.KillAt = mem.killAt
		}
		if mem.run != nil {
			gs.PID, gs.Unit = mem.run.PID(), mem.run.Unit()
		}
		if g.process == processProving && mem.proof != nil {
			gs.Reason = mem.proof.lastFailure()
		}
		if l, ok := mem.run.(Lingerer); ok {
			gs.Reason = cmp.Or(l.Left(), gs.Reason)
		}
		st.Generations = append(st.Generations, gs)
	}
	return st
}
