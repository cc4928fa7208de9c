package backend

import "reflect"

// seen is what a step is judged against.
type seen struct {
	current  uint64
	previous uint64
	states   map[uint64]State
	draining int
	closing  bool
}

func (w *world) look() seen {
	s := seen{current: w.settled, previous: w.m.previous, states: map[uint64]State{}, closing: w.m.closing}
	for id, g := range w.m.gens {
		s.states[id] = g.state
		if g.drainsSuperseded() {
			s.draining++
		}
	}
	return s
}

// check judges one step by the invariants, before its actions are carried out.
func (w *world) check(before seen, e Event, actions []Action) {
	if w.m.pending == nil {
		w.checkCurrent(before, e)
		w.settled = w.m.current
	}
	for _, a := range actions {
		switch a := a.(type) {
		case Stop:
			w.mayEnd(before, e, a.Gen)
		case Kill:
			w.mayEnd(before, e, a.Gen)
		case Cut:
			if a.Gen == w.m.current && !w.m.closing {
				w.t.Fatalf("the current generation was cut after %#v", e)
			}
			w.mayEnd(before, e, a.Gen)
		case Answer:
			w.checkAnswer(before, e, a)
		case Route:
			if a.Gen != 0 && (a.Gen != w.m.current || w.process[a.Gen] != running || !w.proven[a.Gen]) {
				w.t.Fatalf("routed to generation %d, which is not current or cannot serve", a.Gen)
			}
		case Switch:
			if moves(w.m) && w.m.previous != before.previous {
				w.t.Fatalf("generation %d was the previous one, and a move made it %d", before.previous, w.m.previous)
			}
		case Start:
			if a.Moves {
				w.mayMove(a)
			}
			if before.closing {
				w.t.Fatalf("generation %d was started while proxyd ends", a.Gen)
			}
			if _, known := before.states[a.Gen]; !known && a.Gen <= w.highest {
				w.t.Fatalf("number %d was used again", a.Gen)
			}
		}
	}
	w.checkDurable()
}

// checkCurrent: one current generation, and it changes by a switch only.
func (w *world) checkCurrent(before seen, e Event) {
	n := 0
	for _, g := range w.m.gens {
		if g.state == Current {
			n++
		}
	}
	want := 0
	if w.served || w.m.current != 0 {
		want = 1
		w.served = true
	}
	if n != want || (n == 1 && w.m.gens[w.m.current].state != Current) {
		w.t.Fatalf("%d generations are current after %#v: %s", n, e, describeState(w.m))
	}
	_, switched := e.(Switched)
	if _, booted := e.(Booted); booted && w.m.current != before.current {
		apart, ok := w.apart[before.current]
		if next := w.m.gens[w.m.current]; !ok || !apart.Beside || next.release != w.m.gens[before.current].release {
			w.t.Fatalf("generation %d replaces %d, which is not stranded", w.m.current, before.current)
		}
		w.left = before.current
		switched = true
	}
	if !switched && w.m.current != before.current {
		w.t.Fatalf("generation %d is current instead of %d, without a switch, after %#v", w.m.current, before.current, e)
	}
}

// mayEnd: the current generation is ended with proxyd, before it was proven or for its
// sockets, or
// where it stands in its own way only, a draining one at its end only, as any other that was given clients.
func (w *world) mayEnd(before seen, e Event, id uint64) {
	if apart, ok := w.apart[id]; ok && !apart.Beside && before.states[id] == Current {
		return // else its release could not be started again
	}
	if id == w.m.current && !w.m.closing {
		if fired, ok := e.(TimerFired); ok && !w.proven[id] && (fired.Kind == TimerReady || fired.Kind == TimerStop) {
			return
		}
		if fit, ok := e.(Misfit); ok && fit.Gen == id { // of a process that was given no client yet
			return
		}
		w.t.Fatalf("the current generation %d was ended after %#v", id, e)
	}
	switch before.states[id] {
	case Draining:
	case Starting, Ready, Standby, Current:
		if !w.given[id] {
			return
		}
	default:
		return
	}
	switch e := e.(type) {
	case Drained:
		if e.Gen == id && e.Serial == w.lastDrain[id] {
			return
		}
	case TimerFired:
		if e.Gen == id && e.Kind == TimerDrain || e.Kind == TimerShutdown {
			return
		}
	case StopRequested:
		if e.Gen == id && e.Mode != StopGraceful {
			return
		}
	case Switched, Booted: // killed between the two, proxyd bounds them after
		if w.policy.MaxDraining > 0 && before.draining > w.policy.MaxDraining {
			return
		}
	}
	w.t.Fatalf("generation %d was ended while it drains, after %#v", id, e)
}

func moves(m *Machine) bool { return m.op != nil && m.op.verb == "move" }

// mayMove: proxyd itself starts a twin of a current generation that serves, by a
// wish, and never where it would be in anybody's way.
func (w *world) mayMove(a Start) {
	g := w.m.gens[a.TwinOf]
	draining := 0
	for _, other := range w.m.gens {
		if other.drainsSuperseded() {
			draining++
		}
	}
	if g == nil || g.id != w.m.current || w.wish != g.id || w.m.gens[a.Gen].release != g.release || !w.proven[g.id] || w.process[g.id] != running ||
		g.probation || w.m.held || w.m.closing || w.policy.MaxDraining > 0 && draining >= w.policy.MaxDraining {
		w.t.Fatalf("generation %d was started for a move from %d: %s", a.Gen, a.TwinOf, describeState(w.m))
	}
}

// checkAnswer: what failed changed nothing, what was done is so.
func (w *world) checkAnswer(before seen, e Event, a Answer) {
	o := a.Outcome
	revert, ok := e.(RevertRequested)
	overtaken := ok && revert.Op != a.Op && o.Verdict == Superseded // the revert changed it
	if o.Verdict != Done && !overtaken && w.m.current != before.current {
		w.t.Fatalf("%s (%s), but generation %d is current instead of %d", o.Verdict, o.Reason, w.m.current, before.current)
	}
	if o.Verdict != Done && o.Reason == "" {
		w.t.Fatalf("%s without a reason", o.Verdict)
	}
	if want := w.ifCurrent[a.Op]; want != 0 && o.Switched && before.current != want {
		w.t.Fatalf("switched from generation %d, if-current was %d", before.current, want)
	}
	if o.Switched && w.m.current != o.Gen {
		w.t.Fatalf("generation %d was switched to, and %d is current", o.Gen, w.m.current)
	}
}

// checkDurable: what is written is read back as it was.
func (w *world) checkDurable() {
	d := w.m.durable()
	if again := NewMachine(w.policy, d).durable(); !reflect.DeepEqual(d, again) {
		w.t.Fatalf("durable state %+v comes back as %+v", d, again)
	}
}

// settle lets everything come about that is waited for, and dead ones restart.
func (w *world) settle() {
	reported := map[Drained]bool{} // once each
	for range 1000 {
		var e Event
		for _, d := range w.due() {
			if d, ok := d.(Drained); ok {
				if reported[d] {
					continue
				}
				reported[d] = true
			}
			e = d
			break
		}
		if e == nil {
			for _, f := range w.armedTimers() {
				if f.Kind == TimerRestart || f.Kind == TimerShutdown {
					e = f
					break
				}
			}
		}
		if e == nil {
			return
		}
		w.step(e)
	}
	w.t.Fatal("it never comes to rest")
}

// checkSettled: every request is answered and the current generation serves.
func (w *world) checkSettled() {
	if len(w.open) > 0 {
		w.t.Fatalf("operations %v were never answered", w.open)
	}
	if cur := w.m.current; cur != 0 && (w.routed != cur || w.process[cur] != running) {
		w.t.Fatalf("generation %d is current, but new connections go to %d", cur, w.routed)
	}
}

func (w *world) checkFinished() {
	if !w.finished || len(w.open) > 0 {
		w.t.Fatalf("proxyd did not end (operations %v): %s", w.open, describeState(w.m))
	}
	for id, p := range w.process {
		if p != ended {
			w.t.Fatalf("generation %d was left over", id)
		}
	}
}
