package backend

import "maps"

// checkStill is what holds between steps, once all actions are carried out.
func (w *world) checkStill() {
	if !maps.Equal(w.armed, w.m.timers) {
		w.t.Fatalf("timers are %v, the machine knows %v", w.armed, w.m.timers)
	}
	for _, id := range w.ids() {
		if w.m.gens[id] == nil && w.process[id] != ended {
			w.t.Fatalf("generation %d runs, and is not known", id)
		}
	}
	draining := 0
	for _, g := range w.m.gens {
		w.checkProcess(g)
		w.checkState(g)
		if g.drainsSuperseded() {
			draining++
		}
	}
	if w.policy.MaxDraining > 0 && draining > w.policy.MaxDraining {
		w.t.Fatalf("%d generations drain", draining)
	}
	w.checkRoute()
	if w.disk.Current != w.m.current {
		w.t.Fatalf("generation %d is current, the disk says %d", w.m.current, w.disk.Current)
	}
}

// checkProcess: a process that is waited for has a deadline, one that runs is
// known to.
func (w *world) checkProcess(g *generation) {
	if g.running() != (w.process[g.id] != ended) {
		w.t.Fatalf("generation %d: the machine thinks that it runs: %t", g.id, g.running())
	}
	if w.proving[g.id] != (g.process == processProving) {
		w.t.Fatalf("generation %d: it is being proven: %t", g.id, w.proving[g.id])
	}
	wants := g.state == Starting || g.state == Current && !w.m.closing
	w.wantTimer(g, TimerStop, g.process == processEnding)
	w.wantTimer(g, TimerReady, wants && (g.process == processLaunching || g.process == processProving))
	w.wantTimer(g, TimerRestart, wants && g.process == processNone)
}

// checkState: no timer of another state, nothing in a state that nobody asked
// for.
func (w *world) checkState(g *generation) {
	w.wantTimer(g, TimerDrain, g.state == Draining && w.policy.DrainDeadline > 0)
	w.wantTimer(g, TimerProbation, g.probation)
	if (g.state != Current || w.m.closing) && w.isArmed(g, TimerMove) {
		w.t.Fatalf("a move from generation %d is waited for, and it is %s", g.id, g.state)
	}
	if g.state != Current && w.isArmed(g, TimerSettle) {
		w.t.Fatalf("generation %d settles, and is %s", g.id, g.state)
	}
	asked := w.m.op != nil && w.m.op.gen == g.id
	switch g.state {
	case Starting:
		if !asked && (g.origin != originFirst || w.m.current != 0) {
			w.t.Fatalf("generation %d is started, and nobody asked for it", g.id)
		}
	case Ready:
		if !asked && g.origin != originStage {
			w.t.Fatalf("generation %d is ready, and nobody staged it", g.id)
		}
	case Standby:
		if g.id != w.m.previous || w.policy.KeepPrevious == 0 {
			w.t.Fatalf("generation %d stands by, and is not the previous one", g.id)
		}
		w.wantTimer(g, TimerKeep, true)
		return
	case Stopped, Failed:
		if g.running() {
			w.t.Fatalf("generation %d runs, and is %s", g.id, g.state)
		}
	}
	w.wantTimer(g, TimerKeep, false)
}

// checkRoute: new connections go to the current generation where it can serve,
// else nowhere.
func (w *world) checkRoute() {
	want := uint64(0)
	if g := w.m.gens[w.m.current]; g != nil && g.process == processUp && !w.m.closing {
		want = g.id
	}
	if w.routed != want {
		w.t.Fatalf("new connections go to %d instead of %d: %s", w.routed, want, describeState(w.m))
	}
}

func (w *world) isArmed(g *generation, kind TimerKind) bool {
	_, ok := w.armed[timerKey{g.id, kind}]
	return ok
}

func (w *world) wantTimer(g *generation, kind TimerKind, want bool) {
	if w.isArmed(g, kind) != want {
		w.t.Fatalf("the %s timer of generation %d is armed: %t (%s)", kind, g.id, !want, describeState(w.m))
	}
}
