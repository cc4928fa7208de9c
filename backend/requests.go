package backend

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// request posts an event that carries an Op and waits for the answer. When ctx
// ends first the operation goes on; only the waiting ends.
func (s *Supervisor) request(ctx context.Context, event func(Op) Event) (Answered, error) {
	answer := make(chan Answered, 1)
	err := s.call(ctx, func() {
		s.lastOp++
		s.answers[s.lastOp] = answer
		s.step(event(s.lastOp))
	})
	if err != nil {
		return Answered{}, err
	}
	select {
	case a, ok := <-answer:
		if !ok {
			return Answered{}, ErrEnded
		}
		return a, nil
	case <-ctx.Done():
		return Answered{}, ctx.Err()
	}
}

// Stage starts a generation of release beside the others and proves it ready.
// Every request gives the answer's Outcome, ErrEnded, or ctx's error, with which
// the request itself goes on. By tells who asked, for the history.
func (s *Supervisor) Stage(ctx context.Context, by, release string) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return StageRequested{Op: op, By: by, Release: release} })
}

// Promote makes generation gen, or else one of release, current.
func (s *Supervisor) Promote(ctx context.Context, by string, gen uint64, release string, ifCurrent uint64) (Answered, error) {
	return s.request(ctx, func(op Op) Event {
		return PromoteRequested{Op: op, By: by, Gen: gen, Release: release, IfCurrent: ifCurrent}
	})
}

// Revert goes back to generation to, or with 0 to the previous one.
func (s *Supervisor) Revert(ctx context.Context, by string, to uint64) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return RevertRequested{Op: op, By: by, To: to} })
}

// Retire ends the standby.
func (s *Supervisor) Retire(ctx context.Context, by string) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return RetireRequested{Op: op, By: by} })
}

// Stop ends one generation.
func (s *Supervisor) Stop(ctx context.Context, by string, gen uint64, mode StopMode) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return StopRequested{Op: op, By: by, Gen: gen, Mode: mode} })
}

// Hold keeps new connections waiting, for limit at most where that is not zero.
func (s *Supervisor) Hold(ctx context.Context, by string, limit time.Duration) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return HoldRequested{Op: op, By: by, Limit: Delay{After: limit}} })
}

// Resume ends a hold.
func (s *Supervisor) Resume(ctx context.Context, by string) (Answered, error) {
	return s.request(ctx, func(op Op) Event { return ResumeRequested{Op: op, By: by} })
}

// Reconfigure replaces what New was given of these. It is for what begins from
// now on: timers that run and checks that are being made stay as they are.
func (s *Supervisor) Reconfigure(ctx context.Context, p Policy, r Readiness, stop syscall.Signal) error {
	if err := checkTimes(p, r); err != nil {
		return fmt.Errorf("reconfigure: %w", err)
	}
	return s.call(ctx, func() {
		// One by one: other goroutines read the rest of it.
		s.cfg.Policy, s.cfg.Readiness = p, r
		if stop != 0 {
			s.cfg.StopSignal = stop
		}
		s.machine.reconfigure(p)
	})
}

// History gives the last n entries, oldest first; 0 gives all that are kept.
func (s *Supervisor) History(ctx context.Context, n int) ([]Entry, error) {
	var entries []Entry
	err := s.call(ctx, func() { entries = s.cfg.History.Last(n) })
	return entries, err
}

// Events gives the entries after number after, and then new ones as they come,
// until ctx ends. The channel is closed then, when the Supervisor ends, and when
// its reader falls far behind.
func (s *Supervisor) Events(ctx context.Context, after uint64) (<-chan Entry, error) {
	events := make(chan Entry, historyKept+256)
	err := s.call(ctx, func() {
		for _, e := range s.cfg.History.Last(0) {
			if e.Seq > after {
				events <- e
			}
		}
		s.watchers[events] = true
	})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() {
		_ = s.call(context.Background(), func() {
			if s.watchers[events] {
				delete(s.watchers, events)
				close(events)
			}
		})
	})
	return events, nil
}

// Hurry is for a second stop signal to proxyd: it ends every process at once, or
// with Config.Leave only Run.
func (s *Supervisor) Hurry() {
	_ = s.call(context.Background(), func() {
		if s.cfg.Leave {
			s.finished = s.machine.leaving
			return
		}
		for id, m := range s.gens {
			s.cfg.Router.Cut(id)
			if m.run != nil {
				_ = m.run.Kill()
			}
		}
	})
}
