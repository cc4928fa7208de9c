package backend

import "cmp"

// adopted: the process of a generation outlived proxyd.
func (m *Machine) adopted(e Adopted) {
	if g := m.gens[e.Gen]; g != nil {
		g.process = processUp
		m.record(WhatAdopted, g, "", "")
	}
}

// lost: it did not.
func (m *Machine) lost(e Lost) {
	if g := m.gens[e.Gen]; g != nil {
		g.process = processNone
	}
}

// booted puts every generation where it belongs after a restart of proxyd, and
// starts the first one where there is none. The route comes first: on the direct
// path the kernel goes on giving clients to whatever the last proxyd steered to,
// and no count of a generation can be trusted before that has ended.
func (m *Machine) booted(e Booted) {
	if m.held {
		m.emit(Hold{})
	}
	m.resumeRoute()
	for _, g := range m.sorted() {
		m.resumeGeneration(g)
	}
	if g := m.gens[m.current]; g != nil && !g.running() && m.goesBack(g) {
		m.record(WhatDied, g, "", away)
		m.currentDied(g, away)
	}
	m.boundDraining()
	if m.current == 0 && !m.anyFirst() {
		m.create(e.Release, originFirst, "")
	}
	m.emit(Save{})
}

func (m *Machine) resumeRoute() {
	if g := m.gens[m.current]; g != nil && g.process == processUp && g.stranded == "" {
		m.emit(Route{Gen: g.id})
		return
	}
	for _, g := range m.gens {
		if g.running() {
			m.emit(Route{Gen: 0})
			return
		}
	}
}

func (m *Machine) anyFirst() bool {
	for _, g := range m.gens {
		if g.origin == originFirst && g.state == Starting {
			return true
		}
	}
	return false
}

const away = "it ended while proxyd was away"

// resumeGeneration decides for one generation of the durable state. A
// generation that was not yet proven, or that belonged to a promote or revert
// which never finished, is ended: such a step changes nothing. But the last
// proxyd may have been killed between the route and the file, so whatever runs
// may have been given clients since, whatever its state, and keeps them.
func (m *Machine) resumeGeneration(g *generation) {
	const cutShort = "proxyd ended before it was made current"
	if g.stranded != "" && g.state != Current {
		m.resumeStranded(g)
		return
	}
	switch g.state {
	case Current:
		if g.probation && (g.stranded == "" || !g.beside) { // what is left of it
			m.setTimer(g.id, TimerProbation, Delay{After: m.policy.Probation})
		}
		switch {
		case g.stranded != "":
			m.resumeStranded(g)
		case g.process != processUp && !m.goesBack(g): // else booted goes back
			m.launch(g, "")
		}
	case Starting, Ready:
		switch {
		case g.state == Ready && g.origin == originStage && g.running():
			m.doubt(g)
		case g.running():
			g.unsure = true
			m.endIdle(g, Failed, "", cutShort)
		case g.origin == originFirst && m.current == 0:
			g.state = Starting
			m.launch(g, "")
		default:
			m.ended(g, Failed, cutShort)
		}
	case Draining:
		if !g.running() {
			m.ended(g, Stopped, away)
			return
		}
		m.watchDrain(g)
	case Standby:
		switch {
		case !g.running():
			m.ended(g, Stopped, away)
		case g.id != m.previous:
			g.unsure = true
			m.endIdle(g, Stopped, "", "displaced")
		default:
			m.doubt(g)
			m.setTimer(g.id, TimerKeep, Delay{After: m.keepPrevious()})
		}
	case Stopping:
		if !g.running() {
			m.ended(g, Stopped, cmp.Or(g.reason, away))
			return
		}
		m.stop(g, Stopped, "", g.reason)
	case Stopped, Failed:
		if g.running() {
			m.stop(g, g.state, "", g.reason)
		}
	}
}
