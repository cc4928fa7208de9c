package backend

import "fmt"

// pendingSwitch is what must be known when the answer to a Switch comes, and
// what must be put back if it failed.
type pendingSwitch struct {
	gen, old         *generation
	how              What
	by, reason       string
	genState, oState State
	previous         uint64
	probation        bool // begins with the switch
}

func (m *Machine) stageRequested(e StageRequested) {
	if m.busy(e.Op) {
		return
	}
	release, ok := m.releaseOr(e.Op, e.Release)
	if !ok {
		return
	}
	before := m.op
	m.op = &operation{op: e.Op, verb: "stage", by: e.By, gen: m.next, started: true}
	m.create(release, originStage, e.By)
	m.supersede(before, e.By, "stage")
}

func (m *Machine) promoteRequested(e PromoteRequested) {
	if m.busy(e.Op) || m.otherCurrent(e.Op, e.IfCurrent) {
		return
	}
	if e.Gen != 0 {
		m.makeCurrent(e.Op, "promote", e.By, e.Gen, e.IfCurrent)
		return
	}
	release, ok := m.releaseOr(e.Op, e.Release)
	if !ok {
		return
	}
	before := m.op
	m.op = &operation{op: e.Op, verb: "promote", by: e.By, ifCurrent: e.IfCurrent}
	if g := m.staged(release); g != nil {
		m.op.gen = g.id
		m.switchForOp(g)
	} else {
		m.op.started = true
		m.op.gen = m.next
		m.create(release, originPromote, e.By)
	}
	m.supersede(before, e.By, "promote")
}

func (m *Machine) revertRequested(e RevertRequested) {
	to := e.To
	if to == 0 {
		to = m.previous
	}
	if !m.givesWay(to) && m.busy(e.Op) {
		return
	}
	if to == 0 {
		m.refuse(e.Op, Refused, "`proxyctl revert --to GENERATION` goes to any that `proxyctl status` lists, also to one that has ended",
			"there is no previous generation to go back to")
		return
	}
	m.makeCurrent(e.Op, "revert", e.By, to, 0)
}

// makeCurrent switches to a known generation: at once if it runs, else it is
// started and proven first.
func (m *Machine) makeCurrent(op Op, verb, by string, id, ifCurrent uint64) {
	g, before := m.gens[id], m.op
	switch {
	case g == nil:
		m.refuse(op, Refused, "`proxyctl status` lists the generations", "there is no generation %d", id)
	case g.state == Current:
		m.answer(op, Outcome{Verdict: Done, Gen: id, Previous: m.previous, Reason: fmt.Sprintf("generation %d is current already", id)})
	case g.serves():
		m.op = &operation{op: op, verb: verb, by: by, gen: id, ifCurrent: ifCurrent}
		m.switchForOp(g)
		m.supersede(before, by, verb)
	case g.state == Stopped || g.state == Failed:
		m.op = &operation{op: op, verb: verb, by: by, gen: id, ifCurrent: ifCurrent, started: true}
		m.startOver(g, by)
		m.supersede(before, by, verb)
	case g.state == Stopping: // it is started once it has ended
		m.op = &operation{op: op, verb: verb, by: by, gen: id, ifCurrent: ifCurrent, started: true}
		m.supersede(before, by, verb)
	case g.state == Starting:
		m.refuse(op, Refused, "it is made current once it is ready", "generation %d is still starting", id)
	case g.stranded != "":
		m.refuse(op, Refused, "`proxyctl promote` with its release starts another run of that", "generation %d is %s: %s", id, g.state, g.stranded)
	default:
		m.refuse(op, Refused, "wait until it has ended, then ask again", "generation %d is %s", id, g.state)
	}
}

// givesWay says whether the operation in progress would be given up for a revert
// to another generation: one that starts something which has no client yet. The
// way back is never blocked by that.
func (m *Machine) givesWay(to uint64) bool {
	return !m.closing && m.op != nil && m.op.verb != "revert" && m.op.gen != to && m.pending == nil
}

// supersede gives up the operation that was in progress, if there was one, and
// what it has started. It comes after the switch, which is what is wanted.
func (m *Machine) supersede(op *operation, by, verb string) {
	if op == nil {
		return
	}
	if op.verb == "move" {
		if m.pending != nil { // nothing may be saved before it is known how that went
			return
		}
		m.moveLater(op.ifCurrent)
	}
	g := m.gens[op.gen]
	why := fmt.Sprintf("a %s came before generation %d was ready", verb, g.id)
	m.answer(op.op, Outcome{Verdict: Superseded, Gen: g.id, Started: op.started, Reason: why})
	if g.state == Starting {
		m.stop(g, Stopped, by, why)
	}
}

// startOver starts a generation that has ended, for the operation in progress.
func (m *Machine) startOver(g *generation, by string) {
	g.state, g.origin, g.reason, g.restarts = Starting, originRevert, "", 0
	g.stopWhenDrained = false
	m.launch(g, by)
}

// busy refuses a second operation by the name of the first. A move is none to be
// refused for: what is asked for supersedes it.
func (m *Machine) busy(op Op) bool {
	switch {
	case m.closing:
		m.refuse(op, Refused, "", errEnding)
	case m.op != nil && m.op.verb != "move":
		g := m.gens[m.op.gen]
		m.refuse(op, Superseded, fmt.Sprintf("wait for it, or `proxyctl stop %d` cancels it", g.id),
			"a %s of generation %d (%s) is in progress", m.op.verb, g.id, g.release)
	default:
		return false
	}
	return true
}

func (m *Machine) otherCurrent(op Op, want uint64) bool {
	if want == 0 || want == m.current {
		return false
	}
	m.refuse(op, Superseded, "look at `proxyctl status`, then decide again",
		"the current generation is %d, not %d", m.current, want)
	return true
}

func (m *Machine) releaseOr(op Op, release string) (string, bool) {
	if release != "" {
		return release, true
	}
	if g := m.gens[m.current]; g != nil {
		return g.release, true
	}
	m.refuse(op, Refused, "name a release", "there is no current generation whose release could be used")
	return "", false
}

// staged gives the newest generation of release that waits to be promoted.
func (m *Machine) staged(release string) *generation {
	var found *generation
	for _, g := range m.sorted() {
		if g.state == Ready && g.release == release && g.process == processUp {
			found = g
		}
	}
	return found
}

// switchForOp switches to g for the operation in progress, if it still may.
func (m *Machine) switchForOp(g *generation) {
	op := m.op
	if op.ifCurrent != 0 && op.ifCurrent != m.current {
		m.op = nil
		m.otherCurrent(op.op, op.ifCurrent)
		if op.started {
			m.stop(g, Stopped, "", "superseded before it was made current")
		}
		return
	}
	how, why := WhatPromoted, ""
	switch op.verb {
	case "revert":
		how = WhatReverted
	case "move":
		how, why = WhatMoved, op.why
	}
	m.switchTo(g, how, op.by, why)
}

// switchTo makes g the current generation: the Machine's state is already the
// one after the switch, so that it is what gets written; switchFailed puts it
// back.
func (m *Machine) switchTo(g *generation, how What, by, reason string) {
	old := m.gens[m.current]
	p := &pendingSwitch{gen: g, old: old, how: how, by: by, reason: reason, genState: g.state, previous: m.previous}
	started := m.op != nil && m.op.gen == g.id && m.op.started && how != WhatMoved
	p.probation = (how == WhatPromoted || started) && old != nil && m.policy.Probation > 0
	g.state = Current
	m.current = g.id
	if old != nil {
		p.oState = old.state
		switch {
		case how == WhatMoved: // what `revert` goes back to stays what it was
		case old.process == processUp:
			m.previous = old.id
		case m.previous == g.id: // nobody wants to go back to what has failed
			m.previous = 0
		}
		switch old.process {
		case processUp:
			old.state, old.final = Draining, ""
		case processNone:
			old.state = Failed
		default:
			old.state = Stopping
		}
	}
	m.pending = p
	// The first generation takes nothing from anybody: it serves also where the
	// disk takes no state, rather than be started over and over.
	m.emit(Switch{Gen: g.id, Strict: how != WhatReverted && (old != nil || m.op != nil && m.op.gen == g.id)})
}

func (m *Machine) switchFailed(e SwitchFailed) {
	p := m.pending
	if p == nil || p.gen.id != e.Gen {
		return
	}
	m.pending = nil
	p.gen.state = p.genState
	m.current, m.previous = 0, p.previous
	if p.old != nil {
		p.old.state = p.oState
		m.current = p.old.id
	}
	if op := m.op; op != nil && op.gen == p.gen.id {
		m.endOp()
		m.answer(op.op, Outcome{Verdict: Refused, Gen: p.gen.id, Started: op.started,
			Reason: "nothing was switched: " + e.Reason})
		if op.started {
			p.gen.unsure = true // until it failed, clients may have come to it
			m.endIdle(p.gen, Failed, "", e.Reason)
		}
	}
	if p.gen.state == Ready || p.gen.state == Standby {
		m.doubt(p.gen)
	}
	if m.endUnwantedMoves() {
		m.moveLater(m.current)
	}
	m.emit(Save{}) // the file may say otherwise, if it failed after the rename
}

func (m *Machine) switched(e Switched) {
	p := m.pending
	if p == nil || p.gen.id != e.Gen {
		return
	}
	m.pending = nil
	g := p.gen
	if p.how == WhatMoved { // from now on it is one like any other
		g.origin = originPromote
	}
	g.reason = ""
	g.restarts = 0
	g.stopWhenDrained = false
	g.unsure = false
	g.drainSerial = 0 // a Drained that is under way means nothing now
	m.cancelTimers(g.id, TimerDrain, TimerKeep)
	var from uint64
	if p.old != nil {
		from = p.old.id
	}
	m.emit(Record{What: p.how, Gen: g.id, From: from, By: p.by, Reason: p.reason})
	if p.probation {
		g.probation = true
		m.setTimer(g.id, TimerProbation, Delay{After: m.policy.Probation})
	}
	if op := m.op; op != nil && op.gen == g.id {
		m.op = nil
		m.answer(op.op, Outcome{Verdict: Done, Gen: g.id, Previous: from, Switched: true, Started: op.started})
	}
	if p.old != nil {
		m.superseded(p.old)
	}
	m.endUnwantedMoves()
	for _, other := range m.sorted() {
		switch {
		case other.state == Standby && other.id != m.previous:
			m.endIdle(other, Stopped, "", "displaced")
		case other.origin == originFirst && other.state == Starting:
			m.stop(other, Failed, "", "another generation was made current first")
		}
	}
	m.emit(Save{})
}

// superseded lets the generation that was current until now drain, or ends what
// is left of it.
func (m *Machine) superseded(old *generation) {
	old.probation = false
	m.cancelTimers(old.id, TimerProbation, TimerSettle, TimerRestart, TimerMove)
	switch old.state {
	case Draining:
		m.record(WhatDraining, old, "", "")
		m.watchDrain(old)
		m.boundDraining()
	case Failed:
		m.ended(old, Failed, old.reason)
	case Stopping:
		m.stop(old, Failed, "", old.reason)
	}
}

// switchedFrom is where the route goes back to when a switch fails half-way: the
// old generation where it can serve, else nowhere.
func (m *Machine) switchedFrom() uint64 {
	if p := m.pending; p != nil && p.old != nil && p.old.process == processUp {
		return p.old.id
	}
	return 0
}
