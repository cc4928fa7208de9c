package backend

import (
	"fmt"
	"time"
)

const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 30 * time.Second
	// restartTries that fail, one after the other, are evidence enough to go
	// back to a previous generation that still runs.
	restartTries = 3
	// settled: a generation that was started again and lives this long may
	// begin its backoff anew.
	settled = 10 * time.Second
)

func (m *Machine) started(e Started) {
	g := m.gens[e.Gen]
	if g == nil || g.process != processLaunching {
		return
	}
	switch g.state {
	case Starting, Current:
		if m.closing && g.state == Current {
			m.end(g)
			return
		}
		g.process = processProving
		m.emit(Prove{Gen: g.id})
	default: // it was stopped while it was launched
		m.end(g)
	}
}

// isStaged says that g is a new generation that somebody asked for. One that a revert
// goes back to is not: that must work at once.
func (m *Machine) isStaged(g *generation) bool {
	op := m.op
	return g.state == Starting && op != nil && op.gen == g.id && (op.verb == "stage" || op.verb == "promote")
}

func (m *Machine) startFailed(e StartFailed) {
	g := m.gens[e.Gen]
	if g == nil || g.process != processLaunching {
		return
	}
	why := "it could not be started: " + e.Reason
	if g.late {
		why = g.reason // its start was cancelled for that
	}
	g.process = processNone
	m.cancelTimers(g.id, TimerReady)
	m.gone(g, why)
}

func (m *Machine) provenReady(e ProvenReady) {
	g := m.gens[e.Gen]
	if g == nil || g.process != processProving {
		return
	}
	g.process = processUp
	m.cancelTimers(g.id, TimerReady)
	if g.state == Current { // it was started again
		g.reason = ""
		m.record(WhatServing, g, "", "")
		m.emit(Route{Gen: g.id}, Save{})
		m.setTimer(g.id, TimerSettle, Delay{After: settled})
		return
	}
	g.state = Ready
	op := m.op
	switch {
	case op != nil && op.gen == g.id && op.verb == "stage":
		m.record(WhatReady, g, op.by, "")
		m.emit(Save{})
		m.op = nil
		m.answer(op.op, Outcome{Verdict: Done, Gen: g.id, Started: true})
	case op != nil && op.gen == g.id:
		m.record(WhatReady, g, op.by, "")
		m.switchForOp(g)
	case g.origin == originFirst && m.current == 0:
		m.record(WhatReady, g, "", "")
		m.switchTo(g, WhatPromoted, "", "the first generation")
	default: // nobody waits for it any more
		m.stop(g, Stopped, "", "not wanted any more")
	}
}

// misfit: the process is ready, on sockets that are not for it. Nothing speaks against
// it; no client has been given to it yet, and one that waits goes on waiting.
func (m *Machine) misfit(e Misfit) {
	g := m.gens[e.Gen]
	if g == nil || g.process != processProving {
		return
	}
	if id, _ := m.twinOf(g); id != 0 { // it is of no use on others
		m.failOp(g, e.Why)
		m.stop(g, Failed, "", e.Why)
		return
	}
	m.cancelTimers(g.id, TimerReady)
	g.misfit = e.Why
	m.end(g)
}

// readyLate: the ready deadline is over.
func (m *Machine) readyLate(g *generation) {
	if g.process != processLaunching && g.process != processProving {
		return
	}
	why := fmt.Sprintf("it was not ready within %s", m.policy.ReadyDeadline)
	if g.state == Current || (g.origin == originFirst && m.current == 0) {
		g.reason = why
		if g.process == processLaunching { // nothing to end yet: look again
			g.late = true
			m.emit(CancelStart{Gen: g.id})
			m.setTimer(g.id, TimerReady, Delay{After: m.policy.ReadyDeadline})
			return
		}
		m.emit(StopProving{Gen: g.id})
		m.end(g) // its exit starts it again
		return
	}
	m.failOp(g, why)
	m.stop(g, Failed, "", why)
}

func (m *Machine) exited(e Exited) {
	g := m.gens[e.Gen]
	if g == nil || !g.running() || g.process == processLaunching {
		return // Started comes before the Exited of the same process
	}
	if g.process == processProving {
		m.emit(StopProving{Gen: g.id})
	}
	late := g.process == processEnding && g.reason != "" // readyLate's own word is better
	g.process = processNone
	m.cancelTimers(g.id, TimerReady, TimerStop, TimerSettle)
	why := e.Reason
	if late {
		why = g.reason
	}
	m.gone(g, why)
}

// gone: g has no process any more, and why.
func (m *Machine) gone(g *generation, why string) {
	if g.misfit != "" && (g.state == Starting || g.state == Current && !m.closing) {
		m.record(WhatRestarting, g, "", "on other sockets: "+g.misfit)
		m.launch(g, "")
		return
	}
	switch g.state {
	case Current:
		if m.closing {
			g.reason = ""
			m.emit(Release{Gen: g.id}, Save{})
			return
		}
		m.record(WhatDied, g, "", why)
		if g.stranded != "" { // it was asked to, so nothing speaks against its release
			m.emit(Route{Gen: 0})
			m.startAgain(g, g.stranded)
			return
		}
		m.currentDied(g, why)
	case Starting:
		if g.origin == originFirst && m.current == 0 && !m.closing {
			m.record(WhatDied, g, "", why)
			m.startAgain(g, why)
			return
		}
		m.failOp(g, why)
		m.ended(g, Failed, why)
	case Stopping:
		reason := g.reason
		if reason == "" {
			reason = why
		}
		m.ended(g, g.final, reason)
	default:
		m.ended(g, Failed, why)
	}
}

// keepsWaiting tells whether clients wait for a generation that has died to be
// started again, or for another one to take its place.
func (m *Machine) keepsWaiting(id uint64) bool {
	g := m.gens[id]
	return g != nil && !m.closing && (g.state == Current || g.state == Starting && m.current == 0)
}

// currentDied goes back to the previous generation where there is evidence
// against this one and the previous still runs, else starts it again. Clients
// wait meanwhile.
func (m *Machine) currentDied(g *generation, why string) {
	if prev := m.gens[m.previous]; m.goesBack(g) {
		g.reason = why
		m.switchTo(prev, WhatReverted, "", fmt.Sprintf("generation %d: %s", g.id, why))
		return
	}
	m.emit(Route{Gen: 0})
	m.startAgain(g, why)
}

// goesBack tells whether there is evidence against a current generation that has
// died, and a previous one that serves.
func (m *Machine) goesBack(g *generation) bool {
	prev := m.gens[m.previous]
	return prev != nil && prev != g && prev.serves() && (g.probation || g.restarts >= restartTries)
}

// startAgain arms the backoff after which g gets a new process.
func (m *Machine) startAgain(g *generation, why string) {
	g.reason = why
	d := restartFirst << min(g.restarts, 16)
	g.restarts++
	m.record(WhatRestarting, g, "", fmt.Sprintf("try %d", g.restarts))
	m.emit(Save{})
	m.setTimer(g.id, TimerRestart, Delay{After: min(d, restartMost), Jitter: true})
}

// failOp answers the operation that g was started for.
func (m *Machine) failOp(g *generation, why string) {
	if op := m.op; op != nil && op.gen == g.id {
		m.endOp()
		m.answer(op.op, Outcome{Verdict: NotReady, Gen: g.id, Started: true, Reason: why})
	}
}
