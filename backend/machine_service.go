package backend

// What concerns the service as a whole: hold, resume, the end of proxyd.

func (m *Machine) holdRequested(e HoldRequested) {
	if m.closing {
		m.refuse(e.Op, Refused, "", errEnding)
		return
	}
	m.giveUpMove("new connections are held")
	if !m.held {
		m.held = true
		m.emit(Hold{}, Record{What: WhatHeld, By: e.By})
	}
	m.cancelTimers(0, TimerHold)
	if e.Limit.After > 0 {
		m.setTimer(0, TimerHold, e.Limit)
	}
	m.emit(Save{}) // after the timer, whose end is part of the state
	m.answer(e.Op, Outcome{Verdict: Done, Gen: m.current})
}

func (m *Machine) resumeRequested(e ResumeRequested) {
	if !m.held {
		m.answer(e.Op, Outcome{Verdict: Done, Gen: m.current, Reason: "nothing was held"})
		return
	}
	m.resume(e.By, "")
	m.answer(e.Op, Outcome{Verdict: Done, Gen: m.current})
}

func (m *Machine) resume(by, why string) {
	m.held = false
	m.cancelTimers(0, TimerHold)
	m.emit(Resume{}, Record{What: WhatResumed, By: by, Reason: why}, Save{})
}

func (m *Machine) serviceTimer(kind TimerKind) {
	switch kind {
	case TimerHold:
		if m.held {
			m.resume("", "the hold's limit is over")
		}
	case TimerShutdown:
		for _, g := range m.sorted() {
			if g.running() && (g.state == Current || g.state == Draining) && g.process != processEnding {
				m.record(WhatCut, g, "", "proxyd ends")
				m.emit(Cut{Gen: g.id})
			}
		}
	}
}

// shutdownRequested lets what is in flight finish within ShutdownDrain, then
// ends every generation. The current one stays current in the durable state, so
// that it is started again with proxyd.
func (m *Machine) shutdownRequested() {
	if m.closing {
		return
	}
	m.closing = true
	m.emit(Seal{})
	m.supersedeOp()
	for _, g := range m.sorted() {
		switch g.state {
		case Current:
			m.cancelTimers(g.id, TimerRestart, TimerReady, TimerMove)
			switch g.process {
			case processLaunching:
				m.emit(CancelStart{Gen: g.id})
			case processProving:
				m.emit(StopProving{Gen: g.id})
				m.end(g)
			case processUp:
				m.serial++
				g.drainSerial = m.serial
				m.emit(WatchDrain{Gen: g.id, Serial: g.drainSerial})
			}
		case Starting, Ready, Standby:
			m.endIdle(g, Stopped, "", "proxyd ends")
		}
	}
	m.setTimer(0, TimerShutdown, Delay{After: m.policy.ShutdownDrain})
	m.emit(Save{})
}

func (m *Machine) supersedeOp() {
	if op := m.op; op != nil {
		m.op = nil
		m.answer(op.op, Outcome{Verdict: Superseded, Gen: op.gen, Started: op.started, Reason: errEnding})
	}
}

const errEnding = "proxyd is ending"

// leaveRequested takes clients no more and changes nothing else: what runs, runs
// on, and is found by the next proxyd as after a crash.
func (m *Machine) leaveRequested() {
	if m.closing {
		return
	}
	m.leaving = true
	m.emit(Leave{})
	m.supersedeOp()
	for _, g := range m.sorted() {
		switch g.process {
		case processLaunching:
			m.emit(CancelStart{Gen: g.id})
		case processProving:
			m.emit(StopProving{Gen: g.id})
		}
	}
	m.emit(Save{})
}

// refuseLeaving answers requests that come too late. All else is passed over.
func (m *Machine) refuseLeaving(e Event) {
	var op Op
	switch e := e.(type) {
	case StageRequested:
		op = e.Op
	case PromoteRequested:
		op = e.Op
	case RevertRequested:
		op = e.Op
	case RetireRequested:
		op = e.Op
	case StopRequested:
		op = e.Op
	case HoldRequested:
		op = e.Op
	case ResumeRequested:
		op = e.Op
	}
	m.refuse(op, Refused, "", errEnding)
}

// finishClosing says Finish once, when nothing runs any more.
func (m *Machine) finishClosing() {
	if !m.closing || m.finished {
		return
	}
	for _, g := range m.gens {
		if g.running() {
			return
		}
	}
	m.finished = true
	m.cancelTimers(0, TimerShutdown, TimerHold)
	m.emit(Save{}, Finish{})
}
