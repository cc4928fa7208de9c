package backend

import (
	"fmt"
	"time"
)

func (m *Machine) watchDrain(g *generation) {
	m.serial++
	g.drainSerial = m.serial
	g.drainOrder = m.serial
	m.emit(WatchDrain{Gen: g.id, Serial: g.drainSerial})
	if m.policy.DrainDeadline > 0 {
		m.setTimer(g.id, TimerDrain, Delay{After: m.policy.DrainDeadline})
	}
}

// boundDraining cuts the generations that drain the longest, past MaxDraining.
func (m *Machine) boundDraining() {
	for m.policy.MaxDraining > 0 {
		n := 0
		var oldest *generation
		for _, g := range m.sorted() {
			if !g.drainsSuperseded() {
				continue
			}
			n++
			if oldest == nil || g.drainOrder < oldest.drainOrder {
				oldest = g
			}
		}
		if n <= m.policy.MaxDraining {
			return
		}
		m.cut(oldest, fmt.Sprintf("more than %d generations drain (drain.max_draining), this one the longest", m.policy.MaxDraining))
	}
}

// cut ends what is in flight on g, and g.
func (m *Machine) cut(g *generation, why string) {
	m.record(WhatCut, g, "", why)
	m.emit(Cut{Gen: g.id})
	m.stopDrained(g, why)
}

func (m *Machine) drained(e Drained) {
	g := m.gens[e.Gen]
	if g == nil || g.drainSerial != e.Serial {
		return
	}
	switch {
	case g.state == Current && m.closing:
		if g.process == processUp { // else it ended by itself, or was told to
			m.end(g)
		}
	case g.state != Draining:
		g.unsure = false
	case m.closing:
		m.stopDrained(g, "drained")
	case g.id == m.previous && !g.stopWhenDrained && m.policy.KeepPrevious > 0:
		g.state = Standby
		m.cancelTimers(g.id, TimerDrain)
		m.record(WhatStandby, g, "", "")
		m.emit(Save{})
		m.setTimer(g.id, TimerKeep, Delay{After: m.keepPrevious()})
	default:
		m.stopDrained(g, "drained")
	}
}

// keepPrevious is how long a standby is kept: at least as long as it may be
// needed for the current generation's probation.
func (m *Machine) keepPrevious() time.Duration {
	if g := m.gens[m.current]; g != nil && g.probation {
		return max(m.policy.KeepPrevious, m.policy.Probation)
	}
	return m.policy.KeepPrevious
}

// stop ends g's process, if it has one; then g is final, for why.
func (m *Machine) stop(g *generation, final State, by, why string) {
	m.cancelTimers(g.id, TimerReady, TimerDrain, TimerKeep, TimerRestart, TimerProbation, TimerSettle)
	if g.process == processProving {
		m.emit(StopProving{Gen: g.id})
	}
	g.state, g.final, g.reason, g.probation, g.unsure = Stopping, final, why, false, false
	if !g.running() {
		m.ended(g, final, why)
		return
	}
	m.record(WhatStopping, g, by, why)
	m.emit(Save{})
	if g.process == processLaunching {
		m.emit(CancelStart{Gen: g.id}) // if Started comes all the same, then end
		return
	}
	m.end(g)
}

// end sends the stop signal; KILL follows when the stop timeout is over, and at
// once where there is none.
func (m *Machine) end(g *generation) {
	g.process = processEnding
	if m.policy.StopTimeout == 0 {
		m.kill(g, "it gets no time to end (stop.timeout)")
		return
	}
	m.emit(Stop{Gen: g.id})
	m.setTimer(g.id, TimerStop, Delay{After: m.policy.StopTimeout})
}

// killAgain is how long a KILL gets at least before the next one: it may have
// gone to a process that was forking.
const killAgain = time.Second

func (m *Machine) kill(g *generation, why string) {
	m.record(WhatKilled, g, "", why)
	m.emit(Kill{Gen: g.id})
	m.setTimer(g.id, TimerStop, Delay{After: max(m.policy.StopTimeout, killAgain)})
}

// ended: g has no process and will not get one by itself.
func (m *Machine) ended(g *generation, final State, why string) {
	m.cancelTimers(g.id, TimerReady, TimerDrain, TimerKeep, TimerRestart, TimerProbation, TimerSettle, TimerStop)
	g.state, g.reason, g.process, g.probation, g.unsure = final, why, processNone, false, false
	what := WhatStopped
	if final == Failed {
		what = WhatFailed
	}
	m.record(what, g, "", why)
	m.emit(Release{Gen: g.id}, Save{})
	for _, op := range g.stopOps {
		m.answer(op, Outcome{Verdict: Done, Gen: g.id})
	}
	g.stopOps = nil
	if op := m.op; op != nil && op.gen == g.id { // it waited for this end
		m.startOver(g, op.by)
	}
}

func (m *Machine) retireRequested(e RetireRequested) {
	g := m.gens[m.previous]
	switch {
	case g != nil && g.state == Standby:
		if g.unsure {
			m.endIdle(g, Stopped, e.By, "retired")
			m.answerWhenDrained(e.Op, g)
			return
		}
		g.stopOps = append(g.stopOps, e.Op)
		m.stop(g, Stopped, e.By, "retired")
	case g != nil && g.state == Draining:
		m.refuse(e.Op, Refused, fmt.Sprintf("`proxyctl stop %d` ends it once drained, with --now at once", g.id),
			"generation %d does not stand by yet, it drains", g.id)
	default:
		m.refuse(e.Op, Refused, "", "no generation stands by")
	}
}

func (m *Machine) stopRequested(e StopRequested) {
	g := m.gens[e.Gen]
	if g == nil {
		m.refuse(e.Op, Refused, "`proxyctl status` lists the generations", "there is no generation %d", e.Gen)
		return
	}
	switch g.state {
	case Current:
		m.refuse(e.Op, Refused, "promote or revert to another one first",
			"generation %d is current, a service keeps its current generation", g.id)
		return
	case Stopped, Failed:
		m.answer(e.Op, Outcome{Verdict: Done, Gen: g.id, Reason: fmt.Sprintf("generation %d has ended already", g.id)})
		return
	case Draining:
		if e.Mode == StopGraceful {
			g.stopWhenDrained = true
			m.emit(Save{})
			m.answerWhenDrained(e.Op, g)
			return
		}
		m.record(WhatCut, g, e.By, "asked for")
		m.emit(Cut{Gen: g.id})
	case Ready, Standby:
		if g.unsure && e.Mode == StopGraceful {
			m.endIdle(g, Stopped, e.By, "asked for")
			m.answerWhenDrained(e.Op, g)
			return
		}
		if g.unsure {
			m.record(WhatCut, g, e.By, "asked for")
			m.emit(Cut{Gen: g.id})
		}
	case Starting, Stopping:
		if op := m.op; op != nil && op.gen == g.id {
			m.endOp()
			m.answer(op.op, Outcome{Verdict: Superseded, Gen: g.id, Started: true,
				Reason: fmt.Sprintf("generation %d was stopped before it was ready", g.id)})
		}
	}
	g.stopOps = append(g.stopOps, e.Op)
	if g.state != Stopping {
		m.stop(g, Stopped, e.By, "asked for")
	}
	if e.Mode == StopKill && g.running() && g.process != processLaunching {
		m.kill(g, "asked for")
	}
}

func (m *Machine) timerFired(e TimerFired) {
	key := timerKey{e.Gen, e.Kind}
	if m.timers[key] != e.Serial {
		return
	}
	delete(m.timers, key)
	if e.Gen == 0 {
		m.serviceTimer(e.Kind)
		return
	}
	g := m.gens[e.Gen]
	if g == nil {
		return
	}
	switch e.Kind {
	case TimerReady:
		m.readyLate(g)
	case TimerDrain:
		if g.state == Draining {
			m.cut(g, fmt.Sprintf("drain deadline of %s", m.policy.DrainDeadline))
		}
	case TimerKeep:
		if g.state == Standby {
			m.endIdle(g, Stopped, "", "stood by and was not needed (drain.keep_previous)")
		}
	case TimerStop:
		switch {
		case !g.running():
		case m.policy.StopTimeout == 0:
			m.kill(g, "did not end by KILL")
		default:
			m.kill(g, fmt.Sprintf("did not end within %s of the stop signal", m.policy.StopTimeout))
		}
	case TimerProbation:
		g.probation = false
	case TimerSettle:
		g.restarts = 0
	case TimerRestart:
		if !g.running() && (g.state == Current || g.state == Starting) {
			m.launch(g, "")
		}
	}
}
