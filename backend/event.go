package backend

// Event is something that happened, as the Machine is told of it.
type Event interface{ event() }

// Op numbers a request that waits for an answer. Zero waits for none.
type Op uint64

type (
	// Adopted: while proxyd was away the generation's process lived on.
	Adopted struct{ Gen uint64 }
	// Stranded: it lived on, but for Why no connection can be given to it any more.
	// Beside says that its release can be run once more beside it.
	Stranded struct {
		Gen    uint64
		Why    string
		Beside bool
	}
	// Lost: while proxyd was away the generation's process ended.
	Lost struct{ Gen uint64 }
	// Booted: every record of the durable state was Adopted, Stranded or Lost. Release is
	// what the first generation runs where there is no state.
	Booted struct{ Release string }

	// StageRequested asks for a new generation of Release, proven ready; an
	// empty Release means the current one.
	StageRequested struct {
		Op      Op
		By      string
		Release string
	}
	// PromoteRequested asks to make Gen, or else a generation of Release, or
	// else a new one of the current release, the current one. IfCurrent, where
	// not zero, must be current both now and at the switch.
	PromoteRequested struct {
		Op        Op
		By        string
		Gen       uint64
		Release   string
		IfCurrent uint64
	}
	// RevertRequested asks to go back to generation To, or to the previous one.
	RevertRequested struct {
		Op Op
		By string
		To uint64
	}
	// RetireRequested asks to end the standby.
	RetireRequested struct {
		Op Op
		By string
	}
	// StopRequested asks to end one generation that is not current.
	StopRequested struct {
		Op   Op
		By   string
		Gen  uint64
		Mode StopMode
	}
	// HoldRequested asks to keep new connections waiting; TimerFired of
	// TimerHold ends a hold that was given a limit.
	HoldRequested struct {
		Op    Op
		By    string
		Limit Delay
	}
	// ResumeRequested ends a hold.
	ResumeRequested struct {
		Op Op
		By string
	}
	// MoveWished: the data path would serve Gen's release better than it can serve
	// Gen, by a generation that is started now, for Why. It holds until the next
	// one; Gen of 0: there is no such wish.
	MoveWished struct {
		Gen uint64
		Why string
	}
	// ShutdownRequested: proxyd is to end and its generations with it.
	ShutdownRequested struct{}
	// LeaveRequested: proxyd is to end and its generations are to run on. What
	// happens from here on is for the next proxyd to find.
	LeaveRequested struct{}

	// Started: the generation's process runs; it is to be proven.
	Started struct{ Gen uint64 }
	// StartFailed: there is no process, for Reason.
	StartFailed struct {
		Gen    uint64
		Reason string
	}
	// ProvenReady: the readiness check holds.
	ProvenReady struct{ Gen uint64 }
	// Exited: the generation's main process ended. Output are its last lines.
	Exited struct {
		Gen    uint64
		Reason string
	}
	// Misfit: the process was proven ready, and it shows by now that it was handed
	// the wrong sockets, for Why. Started once more it is given others.
	Misfit struct {
		Gen uint64
		Why string
	}
	// Switched: every event loop has seen the switch to Gen, and it is on disk.
	Switched struct{ Gen uint64 }
	// SwitchFailed: nothing was switched, for Reason.
	SwitchFailed struct {
		Gen    uint64
		Reason string
	}
	// Drained: no connection is left in flight on a generation that gets no
	// new ones. Serial is that of the WatchDrain it answers.
	Drained struct {
		Gen    uint64
		Serial uint64
	}
	// TimerFired: the time of a SetTimer with this Serial is over.
	TimerFired struct {
		Gen    uint64
		Kind   TimerKind
		Serial uint64
	}
)

func (Adopted) event()           {}
func (Stranded) event()          {}
func (Lost) event()              {}
func (Booted) event()            {}
func (StageRequested) event()    {}
func (PromoteRequested) event()  {}
func (RevertRequested) event()   {}
func (RetireRequested) event()   {}
func (StopRequested) event()     {}
func (HoldRequested) event()     {}
func (ResumeRequested) event()   {}
func (MoveWished) event()        {}
func (ShutdownRequested) event() {}
func (LeaveRequested) event()    {}
func (Started) event()           {}
func (StartFailed) event()       {}
func (ProvenReady) event()       {}
func (Exited) event()            {}
func (Misfit) event()            {}
func (Switched) event()          {}
func (SwitchFailed) event()      {}
func (Drained) event()           {}
func (TimerFired) event()        {}

// StopMode says how a generation is asked to end.
type StopMode string

// The ways to end a generation.
const (
	StopGraceful StopMode = ""     // when its last connection is done
	StopNow      StopMode = "now"  // cut what is in flight, then the stop signal
	StopKill     StopMode = "kill" // KILL
)
