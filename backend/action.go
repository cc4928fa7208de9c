package backend

import "time"

// Action is something the Supervisor is to do. Actions of one Step are done in
// order.
type Action interface{ action() }

// Delay is how long a timer runs: After, or, for restarts, a backoff step that
// the Supervisor adds jitter to.
type Delay struct {
	After  time.Duration
	Jitter bool // up to a quarter is taken off or added
}

// TimerKind says what a timer is for.
type TimerKind string

// The timers of the Machine. TimerHold and TimerShutdown belong to no
// generation (number 0).
const (
	TimerReady     TimerKind = "ready"     // not ready in time
	TimerDrain     TimerKind = "drain"     // drain deadline
	TimerKeep      TimerKind = "keep"      // keep_previous over
	TimerStop      TimerKind = "stop"      // stop timeout, then KILL
	TimerProbation TimerKind = "probation" // the promote is final
	TimerRestart   TimerKind = "restart"   // start a dead current again
	TimerSettle    TimerKind = "settle"    // it lived long enough for its backoff to begin anew
	TimerMove      TimerKind = "move"      // try again to move to a twin
	TimerHold      TimerKind = "hold"      // the hold's limit
	TimerShutdown  TimerKind = "shutdown"  // cut what is in flight, proxyd ends
)

type (
	// Save writes the durable state. A failure is logged; the next change
	// tries again.
	Save struct{}
	// Start starts a process for the generation: Started or StartFailed comes.
	// TwinOf, where not zero, is the generation that it takes the place of: it runs
	// the same. Moves says that it is of use only where the wish to move comes true.
	Start struct {
		Gen, TwinOf uint64
		Moves       bool
	}
	// CancelStart ends a Start that has not come back: StartFailed comes, unless
	// Started was faster.
	CancelStart struct{ Gen uint64 }
	// Prove runs the readiness check until it holds: ProvenReady comes, or the
	// generation leaves the states in which it is of interest.
	Prove struct{ Gen uint64 }
	// StopProving ends a Prove.
	StopProving struct{ Gen uint64 }
	// Switch sends new connections to Gen. Strict writes the durable state
	// around the switch and fails rather than switch without it (promote); else
	// the switch comes first and the state after it (revert). Switched or
	// SwitchFailed is the very next event.
	Switch struct {
		Gen    uint64
		Strict bool
	}
	// Route sends new connections to Gen, or with 0 lets them wait in the
	// listener's queue. It changes nothing that is durable.
	Route struct{ Gen uint64 }
	// Seal takes no new clients any more. Those that were taken go on.
	Seal struct{}
	// Leave is Seal where the generations run on.
	Leave struct{}
	// WatchDrain asks for a Drained with this Serial.
	WatchDrain struct{ Gen, Serial uint64 }
	// Cut ends every connection in flight on the generation.
	Cut struct{ Gen uint64 }
	// Stop sends the stop signal to the generation's processes.
	Stop struct{ Gen uint64 }
	// Kill ends all of the generation's processes with KILL.
	Kill struct{ Gen uint64 }
	// Release gives up the generation's sockets and route: it has stopped.
	Release struct{ Gen uint64 }
	// Hold keeps new connections waiting; Resume lets them go on.
	Hold   struct{}
	Resume struct{}
	// SetTimer arms a timer; CancelTimer disarms it.
	SetTimer struct {
		Gen    uint64
		Kind   TimerKind
		Serial uint64
		Delay  Delay
	}
	CancelTimer struct {
		Gen  uint64
		Kind TimerKind
	}
	// Record writes one line of history.
	Record struct {
		What   What
		Gen    uint64
		From   uint64 // the generation that was current before, for promotes, reverts and moves
		By     string // who asked; empty: proxyd itself
		Reason string
	}
	// Answer ends a request.
	Answer struct {
		Op      Op
		Outcome Outcome
	}
	// Finish: proxyd may end, nothing runs any more.
	Finish struct{}
)

func (Save) action()        {}
func (Seal) action()        {}
func (Leave) action()       {}
func (Start) action()       {}
func (CancelStart) action() {}
func (Prove) action()       {}
func (StopProving) action() {}
func (Switch) action()      {}
func (Route) action()       {}
func (WatchDrain) action()  {}
func (Cut) action()         {}
func (Stop) action()        {}
func (Kill) action()        {}
func (Release) action()     {}
func (Hold) action()        {}
func (Resume) action()      {}
func (SetTimer) action()    {}
func (CancelTimer) action() {}
func (Record) action()      {}
func (Answer) action()      {}
func (Finish) action()      {}

// What names a transition in the history.
type What string

// The transitions that history tells of.
const (
	WhatStarting   What = "starting"
	WhatReady      What = "ready"
	WhatPromoted   What = "promoted"
	WhatReverted   What = "reverted"
	WhatMoved      What = "moved" // proxyd itself made a twin of the current one current
	WhatDraining   What = "draining"
	WhatCut        What = "cut"
	WhatStandby    What = "standby"
	WhatStopping   What = "stopping"
	WhatKilled     What = "killed"
	WhatStopped    What = "stopped"
	WhatFailed     What = "failed"
	WhatDied       What = "died"
	WhatRestarting What = "restarting"
	WhatServing    What = "serving"
	WhatAdopted    What = "adopted"
	WhatStranded   What = "stranded" // it outlived proxyd, and can be given no client any more
	WhatHeld       What = "held"
	WhatResumed    What = "resumed"
)

// Verdict is the kind of an Outcome.
type Verdict string

// The verdicts, after the exit codes of proxyctl.
const (
	Done       Verdict = "done"
	Refused    Verdict = "failed"     // cannot be done as things stand
	NotReady   Verdict = "not_ready"  // the new generation was not ready; nothing changed
	Superseded Verdict = "superseded" // something else came first
)

// Outcome is the answer to a request.
type Outcome struct {
	Verdict  Verdict
	Gen      uint64 // the generation it was about
	Previous uint64 // the one that was current before
	Switched bool   // new connections go elsewhere than before
	Started  bool   // a process had to be started first
	Reason   string // why not, or what else to know
	Hint     string
}
