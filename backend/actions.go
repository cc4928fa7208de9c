package backend

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"
)

// do carries out one action. What it gives, if not nil, is the next event.
func (s *Supervisor) do(a Action) Event {
	switch a := a.(type) {
	case Save:
		s.save()
	case Start:
		return s.start(a.Gen)
	case CancelStart:
		if m := s.member(a.Gen); m.endStart != nil {
			m.endStart()
		}
	case Prove:
		s.prove(a.Gen)
	case StopProving:
		if m := s.member(a.Gen); m.endProof != nil {
			m.endProof()
		}
	case Switch:
		return s.switchTo(a)
	case Route:
		s.cfg.Router.Switch(a.Gen)
		s.served = s.served || a.Gen != 0
	case Seal:
		s.cfg.Router.Seal()
	case WatchDrain:
		s.watchDrain(a)
	case Cut:
		s.cfg.Router.Cut(a.Gen)
	case Stop:
		if m := s.member(a.Gen); m.run != nil {
			if err := m.run.Signal(s.cfg.StopSignal); err != nil {
				s.logFor(a.Gen).Warn("cannot send the stop signal", "error", err)
			}
		}
	case Kill:
		if m := s.member(a.Gen); m.run != nil {
			if err := m.run.Kill(); err != nil {
				s.logFor(a.Gen).Warn("cannot kill", "error", err)
			}
		}
	case Release:
		s.cfg.Driver.Release(a.Gen)
	case Hold:
		s.cfg.Router.Hold()
	case Resume:
		s.heldUntil = time.Time{}
		s.cfg.Router.Resume()
	case SetTimer:
		s.setTimer(a)
	case CancelTimer:
		s.cancelTimer(timerKey{a.Gen, a.Kind})
	case Record:
		s.record(a)
	case Answer:
		s.answer(a)
	case Finish:
		s.finished = true
	}
	return nil
}

// start plans the generation, where that was not done, and starts it in a task
// of its own: starting may take a while, and others must not wait.
func (s *Supervisor) start(id uint64) Event {
	s.cfg.Fault("start")
	m := s.member(id)
	g := s.machine.gens[id]
	m.lastRun, m.lastLines, m.proof, m.notice = nil, nil, nil, ""
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
	go s.starting(ctx, cancel, Launch{ID: id, Release: g.release, Plan: m.plan})
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
		<-run.Done()
		run.Clear()
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
	run.Clear()
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
	_ = s.call(s.ctx, func() {
		if m := s.member(id); m.proof == p && ctx.Err() == nil && m.run == p.run {
			s.step(ProvenReady{Gen: id})
		}
	})
}

// switchTo is the one step that a promote or revert is about. Strict: the new
// state is on disk, beside the one in force, before the route is switched, and
// renamed into place after; a kill in between brings the old one back, and a
// full disk is found before anything changed. Otherwise the switch comes first.
func (s *Supervisor) switchTo(a Switch) Event {
	s.cfg.Fault("switch")
	if !a.Strict {
		s.cfg.Router.Switch(a.Gen)
		s.switchedAt = time.Now()
		s.served = true
		s.save()
		return Switched{Gen: a.Gen}
	}
	pending, err := s.cfg.Store.Prepare(s.durable())
	if err != nil {
		return SwitchFailed{Gen: a.Gen, Reason: err.Error()}
	}
	s.cfg.Fault("prepared")
	s.cfg.Router.Switch(a.Gen)
	s.switchedAt = time.Now()
	s.cfg.Fault("routed")
	if err := pending.Commit(); err != nil {
		s.cfg.Router.Switch(s.machine.switchedFrom())
		return SwitchFailed{Gen: a.Gen, Reason: err.Error()}
	}
	s.cfg.Fault("committed")
	s.served = true
	return Switched{Gen: a.Gen}
}

func (s *Supervisor) watchDrain(a WatchDrain) {
	drained := s.cfg.Router.Drained(a.Gen)
	s.tasks.Add(1)
	go s.draining(a, drained)
}

// draining ends when the generation has drained, or with Run.
func (s *Supervisor) draining(a WatchDrain, drained <-chan struct{}) {
	defer s.tasks.Done()
	select {
	case <-drained:
		s.post(Drained(a))
	case <-s.quit:
	}
}

func (s *Supervisor) setTimer(a SetTimer) {
	key := timerKey{a.Gen, a.Kind}
	s.cancelTimer(key)
	d := a.Delay.After
	if a.Delay.Jitter {
		d += time.Duration((rand.Float64() - 0.5) / 2 * float64(d))
	}
	switch a.Kind {
	case TimerDrain:
		m := s.member(a.Gen)
		if !m.drainDeadline.IsZero() { // it drained already before proxyd was restarted
			d = max(time.Until(m.drainDeadline), time.Millisecond)
		} else {
			m.drainDeadline = time.Now().Add(d)
		}
	case TimerHold:
		s.heldUntil = time.Now().Add(d)
	}
	s.timers[key] = time.AfterFunc(d, func() {
		s.post(TimerFired{Gen: a.Gen, Kind: a.Kind, Serial: a.Serial})
	})
}

func (s *Supervisor) cancelTimer(key timerKey) {
	if t := s.timers[key]; t != nil {
		t.Stop()
		delete(s.timers, key)
	}
	if key.kind == TimerHold {
		s.heldUntil = time.Time{}
	}
}

// record writes one line of history and one of log for a transition.
func (s *Supervisor) record(a Record) {
	e := Entry{Time: time.Now(), Event: a.What, Gen: a.Gen, From: a.From, By: a.By, Reason: a.Reason}
	if g := s.machine.gens[a.Gen]; g != nil {
		e.Release = g.release
	}
	e, err := s.cfg.History.Add(e)
	if err != nil {
		s.log.Warn("cannot write the history", "error", err)
	}
	pairs := []any{"generation", e.Gen, "release", e.Release}
	if e.From != 0 {
		pairs = append(pairs, "from", e.From)
	}
	if e.By != "" {
		pairs = append(pairs, "by", e.By)
	}
	if e.Reason != "" {
		pairs = append(pairs, "reason", e.Reason)
	}
	if a.What == WhatFailed || a.What == WhatDied || a.What == WhatCut || a.What == WhatKilled {
		s.log.Warn(string(a.What), pairs...)
	} else {
		s.log.Info(string(a.What), pairs...)
	}
	for w := range s.watchers {
		select {
		case w <- e:
		default: // it does not read: it is cut off rather than fed with gaps
			delete(s.watchers, w)
			close(w)
		}
	}
}

func (s *Supervisor) answer(a Answer) {
	c := s.answers[a.Op]
	if c == nil {
		return
	}
	delete(s.answers, a.Op)
	out := Answered{Outcome: a.Outcome, SwitchedAt: s.switchedAt}
	if g := s.machine.gens[a.Outcome.Gen]; g != nil {
		out.Release = g.release
	}
	s.cfg.Fault("answer")
	if a.Outcome.Verdict == NotReady {
		m := s.member(a.Outcome.Gen)
		out.LastLines = m.lastLines
		if m.run != nil {
			out.Reason = m.reasonWith(out.Reason)
		}
		if m.lastRun != nil {
			s.tasks.Add(1)
			go s.answerWithLines(c, out, m.lastRun)
			return
		}
	}
	c <- out // has room for one, and gets one
}

// answerWithLines answers when the last lines of run are known, which others do
// not wait for. It ends with the reading of them; Run waits for it.
func (s *Supervisor) answerWithLines(c chan<- Answered, out Answered, run Run) {
	defer s.tasks.Done()
	out.LastLines = run.LastLines()
	c <- out
}
