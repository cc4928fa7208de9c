package backend

import (
	"fmt"
	"slices"
	"time"
)

// State is where a generation is in its life.
type State string

// The states of DESIGN's diagram.
const (
	Starting State = "starting" // its process is started and proven
	Ready    State = "ready"    // staged: proven, gets no client
	Current  State = "current"  // new connections go to it
	Draining State = "draining" // no new connections, some in flight
	Standby  State = "standby"  // drained, kept for an instant revert
	Stopping State = "stopping" // asked to end
	Stopped  State = "stopped"  // ended as asked; a revert starts it again
	Failed   State = "failed"   // never ready, or died unasked
)

// Policy holds the times and bounds that the Machine decides by. A Duration of
// zero switches the thing off that it is for: no drain deadline, no standby, no
// probation, no time to end before KILL.
type Policy struct {
	ReadyDeadline time.Duration // from the start to proven ready
	Probation     time.Duration // after a promote, a death reverts it
	DrainDeadline time.Duration // then what is left is cut
	KeepPrevious  time.Duration // how long the previous one stands by
	StopTimeout   time.Duration // from the stop signal to KILL
	ShutdownDrain time.Duration // at the end of proxyd, until the cut
	MaxDraining   int           // more than this: the oldest is cut; 0: no bound
	KeepRecords   int           // ended generations that status still shows
}

// The process of a generation, as far as the Machine must know it.
type process int

const (
	processNone      process = iota
	processLaunching         // Start was asked for
	processProving           // runs, not yet proven
	processUp                // runs and was proven, or was adopted
	processEnding            // runs, was told to end, its state says nothing of that
)

// origin says what a generation was first started for.
type origin string

const (
	originFirst   origin = "first"
	originStage   origin = "stage"
	originPromote origin = "promote"
	originRevert  origin = "revert"
	originMove    origin = "move"
)

type generation struct {
	id      uint64
	release string
	state   State
	origin  origin
	reason  string // why it failed, is restarted or was stopped
	process process
	final   State // what Stopping ends in, and Draining where it is not superseded: see endIdle

	late            bool   // its start was cancelled, for it took too long
	restarts        int    // tries to start it again since it was last settled
	moves           int    // moves to a twin of it that came to nothing
	probation       bool   // promoted a short while ago
	stopWhenDrained bool   // no standby for this one
	unsure          bool   // it may have clients though it is not current and does not drain: see doubt
	misfit          string // why its process ends to be started again on other sockets; empty: it does not
	stranded        string // why its process can be given no client any more; empty: it can
	beside          bool   // where it is stranded: its release can be run beside it
	drainSerial     uint64
	drainOrder      uint64
	stopOps         []Op
}

func (g *generation) running() bool { return g.process != processNone }

// serves says that the route may be switched to g as it stands.
func (g *generation) serves() bool {
	return g.process == processUp && g.stranded == "" && (g.state == Draining && g.final != Failed || g.state == Standby || g.state == Ready)
}

type timerKey struct {
	gen  uint64
	kind TimerKind
}

// operation is the one stage, promote, revert or move in progress.
type operation struct {
	op        Op
	verb      string
	by        string
	gen       uint64
	ifCurrent uint64
	started   bool
	why       string // of a move
}

// Machine is the pure core: Step is its only way in. It is not safe for use by
// several goroutines.
type Machine struct {
	policy   Policy
	gens     map[uint64]*generation
	next     uint64
	current  uint64
	previous uint64
	held     bool
	closing  bool
	leaving  bool
	finished bool

	op      *operation
	pending *pendingSwitch
	wish    MoveWished // as last told

	timers  map[timerKey]uint64
	serial  uint64
	actions []Action
}

// NewMachine gives a Machine that goes on from d. Every generation that d calls
// running must be told of by Adopted, Stranded or Lost, then Booted starts it.
func NewMachine(p Policy, d Durable) *Machine {
	if p.KeepRecords == 0 {
		p.KeepRecords = 10
	}
	m := &Machine{
		policy: p, gens: map[uint64]*generation{}, timers: map[timerKey]uint64{},
		next: max(d.Next, 1), current: d.Current, previous: d.Previous, held: d.Held,
	}
	for _, r := range d.Generations {
		g := &generation{id: r.ID, release: r.Release, state: r.State, origin: origin(r.Origin), reason: r.Reason,
			probation:       r.State == Current && r.Probation && p.Probation > 0,
			stopWhenDrained: r.State == Draining && r.StopWhenDrained,
		}
		if r.State == Draining {
			g.final = r.Final
		}
		m.gens[r.ID] = g
		m.next = max(m.next, r.ID+1)
	}
	if m.gens[m.current] == nil {
		m.current = 0
	}
	if m.gens[m.previous] == nil {
		m.previous = 0
	}
	return m
}

// reconfigure replaces the policy for what begins from now on.
func (m *Machine) reconfigure(p Policy) {
	if p.KeepRecords == 0 {
		p.KeepRecords = m.policy.KeepRecords
	}
	m.policy = p
}

// Step takes one event and gives the actions that follow from it, in order.
func (m *Machine) Step(e Event) []Action {
	m.actions = nil
	if m.leaving {
		m.refuseLeaving(e)
		return m.actions
	}
	switch e := e.(type) {
	case Adopted:
		m.adopted(e)
	case Stranded:
		m.strand(e)
	case Lost:
		m.lost(e)
	case Booted:
		m.booted(e)
	case StageRequested:
		m.stageRequested(e)
	case PromoteRequested:
		m.promoteRequested(e)
	case RevertRequested:
		m.revertRequested(e)
	case RetireRequested:
		m.retireRequested(e)
	case StopRequested:
		m.stopRequested(e)
	case HoldRequested:
		m.holdRequested(e)
	case ResumeRequested:
		m.resumeRequested(e)
	case MoveWished:
		m.wish = e
	case ShutdownRequested:
		m.shutdownRequested()
	case LeaveRequested:
		m.leaveRequested()
	case Started:
		m.started(e)
	case StartFailed:
		m.startFailed(e)
	case ProvenReady:
		m.provenReady(e)
	case Exited:
		m.exited(e)
	case Misfit:
		m.misfit(e)
	case Switched:
		m.switched(e)
	case SwitchFailed:
		m.switchFailed(e)
	case Drained:
		m.drained(e)
	case TimerFired:
		m.timerFired(e)
	default:
		panic(fmt.Sprintf("backend: unknown event %T", e))
	}
	m.moveIfWished()
	m.finishClosing()
	// To save twice in a row would only cost an fsync.
	return slices.CompactFunc(m.actions, func(a, b Action) bool { return a == Save{} && b == Save{} })
}

func (m *Machine) emit(a ...Action) { m.actions = append(m.actions, a...) }

func (m *Machine) record(what What, g *generation, by, reason string) {
	m.emit(Record{What: what, Gen: g.id, By: by, Reason: reason})
}

func (m *Machine) answer(op Op, o Outcome) {
	if op != 0 {
		m.emit(Answer{Op: op, Outcome: o})
	}
}

func (m *Machine) refuse(op Op, v Verdict, hint, format string, a ...any) {
	m.answer(op, Outcome{Verdict: v, Reason: fmt.Sprintf(format, a...), Hint: hint})
}

func (m *Machine) setTimer(gen uint64, kind TimerKind, d Delay) {
	m.serial++
	m.timers[timerKey{gen, kind}] = m.serial
	m.emit(SetTimer{Gen: gen, Kind: kind, Serial: m.serial, Delay: d})
}

func (m *Machine) cancelTimers(gen uint64, kinds ...TimerKind) {
	for _, k := range kinds {
		key := timerKey{gen, k}
		if _, ok := m.timers[key]; ok {
			delete(m.timers, key)
			m.emit(CancelTimer{Gen: gen, Kind: k})
		}
	}
}

// sorted gives the generations by rising number, so that actions come in the
// same order each time.
func (m *Machine) sorted() []*generation {
	all := make([]*generation, 0, len(m.gens))
	for _, g := range m.gens {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *generation) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return all
}

// create makes a new generation and starts it.
func (m *Machine) create(release string, o origin, by string) *generation {
	m.prune()
	g := &generation{id: m.next, release: release, state: Starting, origin: o}
	m.gens[g.id] = g
	m.next++
	m.launch(g, by)
	return g
}

// launch starts a process for g. The number is on disk before the process is.
func (m *Machine) launch(g *generation, by string) {
	twinOf, why := m.twinOf(g)
	m.record(WhatStarting, g, by, why)
	m.launchAs(g, Start{Gen: g.id, TwinOf: twinOf, Moves: twinOf != 0})
}

func (m *Machine) launchAs(g *generation, start Start) {
	g.process, g.late, g.stranded, g.misfit = processLaunching, false, "", ""
	m.emit(Save{}, start)
	m.setTimer(g.id, TimerReady, Delay{After: m.policy.ReadyDeadline})
}

// prune forgets the oldest ended generations past KeepRecords. It is done when
// a new one comes, not when one ends: what follows from its end still names it.
func (m *Machine) prune() {
	ended := 0
	all := m.sorted()
	for i := len(all) - 1; i >= 0; i-- {
		g := all[i]
		if (g.state != Stopped && g.state != Failed) || g.id == m.previous || g.id == m.current {
			continue
		}
		if ended++; ended > m.policy.KeepRecords {
			delete(m.gens, g.id)
		}
	}
}
