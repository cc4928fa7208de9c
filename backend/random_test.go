package backend

import (
	"flag"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestMachineRandomly plays random requests, a world that answers in any order
// and at any time, late and double events, and kills of proxyd between any two
// actions. world.check looks at the invariants after each step.
func TestMachineRandomly(t *testing.T) {
	unlessAsked(t, "rapid.checks", "500")
	unlessAsked(t, "rapid.steps", "150")
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.guarded(func() { w.step(Booted{Release: "v0"}) })
		actions := map[string]func(*rapid.T){}
		for name, do := range map[string]func(){
			"request": w.request, "request ": w.request, "answer": w.answerOne, "answer ": w.answerOne, "answer  ": w.answerOne,
			"timer": w.fireOne, "exit": w.exitOne, "late": w.late, "crash": w.crashSoon,
		} {
			actions[name] = func(t *rapid.T) { w.t = t; w.guarded(do) }
		}
		t.Repeat(actions)
		w.t = t
		w.crashIn = -1
		if rapid.Bool().Draw(t, "comes to rest") {
			w.settle()
			w.checkSettled()
		}
		w.step(ShutdownRequested{})
		for range rapid.IntRange(0, 15).Draw(t, "while it ends") {
			rapid.SampledFrom([]func(){w.request, w.answerOne, w.fireOne, w.exitOne, w.late}).Draw(t, "what")()
		}
		w.settle()
		w.checkFinished()
	})
}

// unlessAsked sets a flag of rapid, where the command line did not: its own
// lengths are for worlds with less in them.
func unlessAsked(t *testing.T, name, value string) {
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == name })
	if asked {
		return
	}
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

func randomPolicy(t *rapid.T) Policy {
	orZero := func(name string, d time.Duration) time.Duration {
		if rapid.Bool().Draw(t, name) {
			return d
		}
		return 0
	}
	return Policy{
		ReadyDeadline: time.Second, StopTimeout: orZero("stop", time.Second), ShutdownDrain: orZero("shutdown", time.Second),
		Probation: orZero("probation", time.Second), DrainDeadline: orZero("drain", time.Second),
		KeepPrevious: orZero("keep", time.Second),
		MaxDraining:  rapid.IntRange(0, 2).Draw(t, "max draining"), KeepRecords: rapid.IntRange(1, 3).Draw(t, "records"),
	}
}

func (w *world) op() Op {
	w.lastOp++
	w.open[w.lastOp] = true
	return w.lastOp
}

// request draws one thing that an operator may ask for.
func (w *world) request() {
	release := rapid.SampledFrom([]string{"", "v1", "v2"}).Draw(w.t, "release")
	gen := rapid.Uint64Range(0, w.highest+1).Draw(w.t, "generation")
	var e Event
	switch rapid.IntRange(0, 10).Draw(w.t, "request") {
	case 0:
		e = StageRequested{Op: w.op(), Release: release}
	case 1, 2:
		p := PromoteRequested{Op: w.op(), Release: release, IfCurrent: rapid.SampledFrom([]uint64{0, w.m.current}).Draw(w.t, "if current")}
		w.ifCurrent[p.Op] = p.IfCurrent
		e = p
	case 3:
		p := PromoteRequested{Op: w.op(), Gen: gen, IfCurrent: rapid.SampledFrom([]uint64{0, gen, w.m.current}).Draw(w.t, "if current")}
		w.ifCurrent[p.Op] = p.IfCurrent
		e = p
	case 4, 5:
		e = RevertRequested{Op: w.op(), To: rapid.SampledFrom([]uint64{0, gen}).Draw(w.t, "to")}
	case 6:
		e = RetireRequested{Op: w.op()}
	case 7:
		mode := rapid.SampledFrom([]StopMode{StopGraceful, StopNow, StopKill}).Draw(w.t, "mode")
		e = StopRequested{Op: w.op(), Gen: gen, Mode: mode}
	case 8:
		e = HoldRequested{Op: w.op(), Limit: Delay{After: rapid.SampledFrom([]time.Duration{0, 1}).Draw(w.t, "limit")}}
	case 9:
		e = ResumeRequested{Op: w.op()}
	case 10:
		w.wish = rapid.SampledFrom([]uint64{0, gen, w.m.current, w.m.current}).Draw(w.t, "wish")
		e = MoveWished{Gen: w.wish, Why: "to the direct path"}
	}
	w.step(e)
}

// answerOne lets one thing come about that the machine waits for, or fail.
func (w *world) answerOne() {
	due := w.due()
	if len(due) == 0 {
		return
	}
	e := rapid.SampledFrom(due).Draw(w.t, "answer")
	if s, ok := e.(Started); ok && rapid.IntRange(0, 3).Draw(w.t, "start fails") == 0 {
		e = StartFailed{Gen: s.Gen, Reason: "no such file"}
	}
	w.step(e)
}

func (w *world) fireOne() {
	if timers := w.armedTimers(); len(timers) > 0 {
		w.step(rapid.SampledFrom(timers).Draw(w.t, "timer"))
	}
}

func (w *world) exitOne() {
	var alive []Event
	for _, id := range w.ids() {
		if w.process[id] == running {
			alive = append(alive, Exited{Gen: id, Reason: "status 1"})
		}
	}
	if len(alive) > 0 {
		w.step(rapid.SampledFrom(alive).Draw(w.t, "exit"))
	}
}

// late plays an event that means nothing as things stand: nothing may follow.
func (w *world) late() {
	id := rapid.Uint64Range(0, w.highest+1).Draw(w.t, "generation")
	late := []Event{Switched{Gen: id}, SwitchFailed{Gen: id}}
	if w.process[id] != launching {
		late = append(late, Started{Gen: id}, StartFailed{Gen: id})
	}
	if !w.proving[id] {
		late = append(late, ProvenReady{Gen: id})
	}
	if w.process[id] != running {
		late = append(late, Exited{Gen: id})
	}
	for _, f := range w.fired {
		late = append(late, f)
	}
	for _, d := range w.drains {
		if w.lastDrain[d.Gen] != d.Serial {
			late = append(late, d)
		}
	}
	w.nothingMayFollow = true
	w.step(rapid.SampledFrom(late).Draw(w.t, "late"))
	w.nothingMayFollow = false
}

// crashSoon kills proxyd after some more actions.
func (w *world) crashSoon() {
	if w.crashIn < 0 {
		w.crashIn = rapid.IntRange(0, 12).Draw(w.t, "crash in")
	}
}
