package backend

import (
	"time"
)

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
	var pairs []any
	if e.Gen != 0 { // a hold and a resume are the service's own
		pairs = append(pairs, "generation", e.Gen, "release", e.Release)
	}
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
