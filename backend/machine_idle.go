package backend

import "fmt"

// A generation that stands by, is staged or failed to become current gets no
// client. But there are moments in which one may have: between the route and the
// file of a switch that failed, or of one that proxyd was killed in, after which
// the kernel gave it clients until the next proxyd came. What such a client has
// begun it finishes: where there is doubt, the generation drains before it ends.

// doubt notes that clients may have come to g, and asks for when it has none.
func (m *Machine) doubt(g *generation) {
	g.unsure = true
	m.serial++
	g.drainSerial = m.serial
	m.emit(WatchDrain{Gen: g.id, Serial: g.drainSerial})
}

// endIdle is stop for a generation that should have no client: at once where that
// is known, else once it has drained.
func (m *Machine) endIdle(g *generation, final State, by, why string) {
	if !g.unsure {
		m.stop(g, final, by, why)
		return
	}
	m.cancelTimers(g.id, TimerReady, TimerKeep)
	g.state, g.final, g.reason, g.unsure, g.stopWhenDrained = Draining, final, why, false, true
	m.record(WhatDraining, g, by, why)
	m.watchDrain(g)
	m.emit(Save{})
}

// stopDrained stops a generation whose draining is over, for why or for what it
// was to end for from the start.
func (m *Machine) stopDrained(g *generation, why string) {
	if g.final != "" {
		m.stop(g, g.final, "", g.reason)
		return
	}
	m.stop(g, Stopped, "", why)
}

// drainsSuperseded says that g drains because another one became current. Only
// those are bounded by MaxDraining: what failed to become current must not push
// out what serves clients of old.
func (g *generation) drainsSuperseded() bool { return g.state == Draining && g.final == "" }

func (m *Machine) answerWhenDrained(op Op, g *generation) {
	m.answer(op, Outcome{Verdict: Done, Gen: g.id, Reason: fmt.Sprintf("generation %d ends when its last connection does", g.id)})
}
