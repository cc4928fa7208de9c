package backend

import (
	"context"
	"encoding/json"
	"errors"
)

// start plans the generation, where that was not done, and starts it in a task
// of its own: starting may take a while, and others must not wait.
func (s *Supervisor) start(a Start) Event {
	s.cfg.Fault("start")
	id := a.Gen
	m := s.member(id)
	g := s.machine.gens[id]
	m.lastRun, m.lastLines, m.proof, m.notice = nil, nil, nil, ""
	if a.TwinOf != 0 {
		m.plan = s.member(a.TwinOf).plan
	}
	if m.plan == nil {
		plan, err := s.cfg.Driver.Plan(id, g.release)
		if err != nil {
			return StartFailed{Gen: id, Reason: err.Error()}
		}
		m.plan = plan
	}
	ctx, cancel := context.WithCancel(s.ctx)
	m.endStart = cancel
	s.tasks.Add(1)
	go s.starting(ctx, cancel, Launch{
		ID: id, Release: g.release, Plan: m.plan, Moves: a.Moves,
		Staged: s.machine.isStaged(g),
	})
	return nil
}

// starting is one start of a process. It ends when the driver does; Run waits
// for it, and ends it through ctx as CancelStart does.
func (s *Supervisor) starting(ctx context.Context, cancel context.CancelFunc, l Launch) {
	defer s.tasks.Done()
	defer cancel()
	run, err := s.cfg.Driver.Start(ctx, l, func(identity json.RawMessage) error {
		return s.identified(l.ID, identity)
	})
	s.cfg.Fault("started")
	if err != nil {
		s.startFailed(l.ID, err)
		return
	}
	var unopened error
	err = s.call(s.ctx, func() {
		m := s.member(l.ID)
		if unopened = s.open(l.ID, m, run); unopened != nil {
			m.run = nil
			return
		}
		s.attend(l.ID, m)
		s.step(Started{Gen: l.ID})
	})
	switch {
	case err != nil: // proxyd ends without it
		_ = run.Kill()
	case unopened != nil:
		_ = run.Kill()
		select {
		case <-run.Done():
		case <-s.quit:
			return
		}
		run.Clear(s.ctx, true)
		s.startFailed(l.ID, unopened)
	}
}

// startFailed tells that a generation has no process, and forgets what was
// written down of one.
func (s *Supervisor) startFailed(id uint64, why error) {
	_ = s.call(s.ctx, func() {
		m := s.member(id)
		m.identity = nil
		var told *StartError
		if errors.As(why, &told) {
			m.lastLines = told.Lines
		}
		s.step(StartFailed{Gen: id, Reason: why.Error()})
	})
}

// identified writes down the process of a generation before its program runs.
// Where only the runtime directory took it, that is enough: it lives as long as
// the process can.
func (s *Supervisor) identified(id uint64, identity json.RawMessage) error {
	var failure error
	err := s.call(s.ctx, func() {
		s.member(id).identity = identity
		memory, err := s.cfg.Store.Save(s.durable())
		if err != nil {
			s.log.Error("cannot write the state", "error", err, "kept_in_runtime_directory", memory)
			if g := s.machine.gens[id]; !memory && g != nil && g.state != Current {
				failure = err
			}
		}
		s.cfg.Fault("identified")
	})
	if err != nil {
		return err
	}
	return failure
}

// open tells the router of a generation's addresses.
func (s *Supervisor) open(id uint64, m *member, run Run) error {
	m.run, m.lastRun = run, run
	return s.cfg.Router.Open(id, run.Addresses())
}

// attend starts the tasks that watch a run: one for its end, one for what it
// says of itself.
func (s *Supervisor) attend(id uint64, m *member) {
	s.tasks.Add(2)
	go s.waitExit(id, m.run)
	go s.heed(id, m.run)
}

// heed takes in what a run says of itself, until its channel is closed, which
// is by its end, or Run returns.
func (s *Supervisor) heed(id uint64, run Run) {
	defer s.tasks.Done()
	for {
		select {
		case n, ok := <-run.Notices():
			if !ok {
				return
			}
			_ = s.call(s.ctx, func() {
				if m := s.member(id); m.run == run {
					m.noticed(n)
				}
			})
		case <-run.Done():
			return
		case <-s.quit:
			return
		}
	}
}

// waitExit waits for the end of a run and clears what it left behind, so that
// nothing of it can answer on the sockets of its next run. It ends with the
// process, or, when proxyd ends, with quit: nothing runs then.
func (s *Supervisor) waitExit(id uint64, run Run) {
	defer s.tasks.Done()
	select {
	case <-run.Done():
	case <-s.quit:
		return
	}
	hurry := false
	_ = s.call(s.ctx, func() { hurry = s.machine.keepsWaiting(id) })
	run.Clear(s.ctx, hurry)
	_ = s.call(s.ctx, func() {
		m := s.member(id)
		if m.run != run {
			return
		}
		m.run, m.identity = nil, nil
		s.step(Exited{Gen: id, Reason: run.Exit()})
	})
}

// prove runs the readiness check in a task of its own.
func (s *Supervisor) prove(id uint64) {
	m := s.member(id)
	if m.run == nil {
		return
	}
	s.cfg.Fault("prove")
	ctx, cancel := context.WithCancel(s.ctx)
	m.proof = newProof(s.cfg.Readiness, m.run)
	m.endProof = cancel
	s.tasks.Add(1)
	go s.proving(ctx, cancel, id, m.proof)
}

// proving ends when the check holds or ctx is cancelled; Run waits for it.
func (s *Supervisor) proving(ctx context.Context, cancel context.CancelFunc, id uint64, p *proof) {
	defer s.tasks.Done()
	defer cancel()
	if p.prove(ctx) != nil {
		return
	}
	var is Event = ProvenReady{Gen: id}
	if r, ok := p.run.(Misfitter); ok {
		if why := r.Misfit(); why != "" {
			is = Misfit{Gen: id, Why: why}
		}
	}
	_ = s.call(s.ctx, func() {
		if m := s.member(id); m.proof == p && ctx.Err() == nil && m.run == p.run {
			s.step(is)
		}
	})
}
