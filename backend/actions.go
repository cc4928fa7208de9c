package backend

import (
	"math/rand/v2"
	"time"
)

// do carries out one action. What it gives, if not nil, is the next event.
func (s *Supervisor) do(a Action) Event {
	switch a := a.(type) {
	case Save:
		s.save()
	case Start:
		return s.start(a)
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
	case Leave:
		s.cfg.Router.Leave()
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

// switchTo is the one step that a promote or revert is about. Strict: the new
// state is on disk, beside the one in force, before the route is switched, and
// renamed into place after; a kill in between brings the old one back, and a
// full disk is found before anything changed. Otherwise the switch comes first.
func (s *Supervisor) switchTo(a Switch) Event {
	s.cfg.Fault("switch")
	if !a.Strict {
		s.cfg.Router.Switch(a.Gen)
		s.switchedAt = time.Now()
		s.cfg.Fault("unsaved")
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

// watchDrain takes the place of an earlier one for the generation: what drains over
// and over, as switches go to and fro over a long connection, has one watcher.
func (s *Supervisor) watchDrain(a WatchDrain) {
	m := s.member(a.Gen)
	if m.endWatch != nil {
		close(m.endWatch)
	}
	m.endWatch = make(chan struct{})
	drained := s.cfg.Router.Drained(a.Gen)
	s.tasks.Add(1)
	go s.draining(a, drained, m.endWatch)
}

// draining ends when the generation has drained, when it is watched anew, or with
// Run, which waits for it.
func (s *Supervisor) draining(a WatchDrain, drained, anew <-chan struct{}) {
	defer s.tasks.Done()
	select {
	case <-drained:
		s.post(Drained(a))
	case <-anew:
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
	case TimerProbation:
		m := s.member(a.Gen)
		if !m.probationEnds.IsZero() { // it began before proxyd was restarted
			d = max(time.Until(m.probationEnds), time.Millisecond)
		} else {
			m.probationEnds = time.Now().Add(d)
		}
	case TimerStop:
		s.member(a.Gen).killAt = time.Now().Add(d)
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
