package backend

// A generation is stranded that outlived proxyd and can be given no client any
// more: the sockets that it listens on are not the listeners' by now, or the path
// of its own is gone. It has the clients that it has, and drains. Nobody can be
// switched to it.
//
// Where it is the current one, another run of its release takes its place at once,
// as after a death: clients wait in the listeners' queue until that is ready. It
// need not wait for the end of the stranded one, which may take as long as a
// client likes, or as a program that does not heed the stop signal. Only where the
// release cannot run twice at a time does it wait, and then the stranded one is
// ended at once.

// strand: the process lived on, and cannot be given connections.
func (m *Machine) strand(e Stranded) {
	g := m.gens[e.Gen]
	if g == nil {
		return
	}
	g.process, g.stranded, g.beside = processUp, e.Why, e.Beside
	m.record(WhatStranded, g, "", e.Why)
}

// resumeStranded decides for a stranded generation of the durable state. None of
// its clients is new, but it may have any: what it ends for is known, and it drains
// before.
func (m *Machine) resumeStranded(g *generation) {
	switch g.state {
	case Current:
		if !g.beside {
			m.end(g) // its exit starts it again
			return
		}
		m.replace(g)
	case Draining:
		if g.final == "" {
			g.final, g.reason = Stopped, g.stranded
		}
		g.stopWhenDrained = true
		m.watchDrain(g)
	case Starting, Ready, Standby:
		final := Stopped
		if g.state == Starting {
			final = Failed
		}
		g.unsure = true
		m.endIdle(g, final, "", g.stranded)
	default:
		m.stop(g, g.state.ending(), "", g.reason)
	}
}

// ending is what a generation in that state is to end in.
func (s State) ending() State {
	if s == Failed {
		return Failed
	}
	return Stopped
}

// replace makes a new run of a stranded current generation's release the current
// one, before it runs. What was on trial still is.
func (m *Machine) replace(g *generation) {
	m.prune()
	next := &generation{id: m.next, release: g.release, state: Current, origin: originPromote, probation: g.probation}
	m.gens[next.id] = next
	m.next++
	m.current = next.id
	m.emit(Record{What: WhatMoved, Gen: next.id, From: g.id, Reason: g.stranded})
	g.unsure, g.probation = true, false
	m.endIdle(g, Stopped, "", g.stranded)
	if next.probation {
		m.setTimer(next.id, TimerProbation, Delay{After: m.policy.Probation})
	}
	m.record(WhatStarting, next, "", "")
	m.launchAs(next, Start{Gen: next.id, TwinOf: g.id})
}
