package backend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// written puts a state on disk, as an earlier proxyd did.
func (r *rig) written(d Durable) {
	r.t.Helper()
	store, _, _, _, err := OpenStore(r.dir, r.runtime)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range d.Generations {
		g := &d.Generations[i]
		g.Plan = json.RawMessage(`"` + g.Release + `"`)
		g.Identity = json.RawMessage(`"1"`)
	}
	if _, err := store.Save(d); err != nil {
		r.t.Fatal(err)
	}
}

func TestSupervisorAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		since := time.Now().Add(-time.Hour).UTC()
		r.written(Durable{Next: 3, Current: 2, Previous: 1, Generations: []DurableGeneration{
			{ID: 1, Release: "v1", State: Draining, Origin: "first", Since: since, DrainDeadline: time.Now().Add(5 * time.Second)},
			{ID: 2, Release: "v2", State: Current, Origin: "promote", Since: since},
		}})
		r.driver.outlived(1, "v1")
		r.driver.outlived(2, "v2")
		r.driver.outlived(9, "stray")
		r.router.connections(1, 1)
		r.start()
		defer r.stop()
		r.wantRouted(2)
		r.wantRunning(1, 2)
		if len(r.driver.starts) > 0 || !slices.Equal(r.driver.swept, []uint64{9}) {
			t.Errorf("started %v, swept %v", r.driver.starts, r.driver.swept)
		}
		if g := r.state(2); g.PID != 1002 || !g.Since.Equal(since) {
			t.Errorf("generation 2: %+v", g)
		}
		wait(5*time.Second - 1)
		r.wantState(1, Draining)
		wait(1) // what was left of its deadline
		r.wantState(1, Stopped)
		if !r.router.wasCut(1) {
			t.Error("not cut at the deadline that it was given before")
		}
		// An adopted one that dies is started again.
		r.driver.exit(2, "its process ended")
		wait(time.Second)
		r.wantRouted(2)
		if !slices.Equal(r.driver.starts, []uint64{2}) {
			t.Errorf("started %v", r.driver.starts)
		}
	})
}

func TestSupervisorStartsWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.written(Durable{Next: 3, Current: 2, Previous: 1, Generations: []DurableGeneration{
			{ID: 1, Release: "v1", State: Standby, Origin: "first"},
			{ID: 2, Release: "v2", State: Current, Origin: "promote"},
		}})
		r.start()
		defer r.stop()
		r.wantRouted(2)
		r.wantRunning(2)
		r.wantState(1, Stopped)
		a := r.promote("v3")
		if a.Gen != 3 {
			t.Errorf("the next generation is %d", a.Gen)
		}
	})
}

func TestSupervisorGivesUpARouteThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.written(Durable{Next: 3, Current: 2, Previous: 1, Generations: []DurableGeneration{
			{ID: 1, Release: "v1", State: Standby, Origin: "first"},
			{ID: 2, Release: "v2", State: Current, Origin: "promote"},
		}})
		r.driver.outlived(1, "v1")
		r.driver.outlived(2, "v2")
		r.router.refuse = 1
		r.start()
		defer r.stop()
		r.wantRouted(2)
		r.wantRunning(2) // what cannot be reached is ended rather than kept
		if g := r.state(1); g.State != Stopped || g.PID != 0 {
			t.Errorf("generation 1: %+v", g)
		}
	})
}

func TestSupervisorHoldOutlivesProxyd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.written(Durable{Next: 2, Current: 1, Held: true, HeldUntil: time.Now().Add(5 * time.Second), Generations: []DurableGeneration{
			{ID: 1, Release: "v1", State: Current, Origin: "first"},
		}})
		r.driver.outlived(1, "v1")
		r.start()
		defer r.stop()
		wait(5*time.Second - 1)
		if !r.router.isHeld() {
			t.Error("not held")
		}
		wait(1)
		if r.router.isHeld() {
			t.Error("held after the limit")
		}
	})
}

func TestSupervisorRebuildsALostState(t *testing.T) {
	for name, c := range map[string]struct {
		history []Entry
		current uint64
	}{
		"by history":                   {[]Entry{{Event: WhatPromoted, Gen: 4, From: 3}, {Event: WhatReverted, Gen: 3, From: 4}, {Event: WhatStarting, Gen: 7}}, 3},
		"by a move":                    {[]Entry{{Event: WhatPromoted, Gen: 3, From: 2}, {Event: WhatMoved, Gen: 4, From: 3}}, 4},
		"by number":                    {nil, 5},
		"history of what does not run": {[]Entry{{Event: WhatPromoted, Gen: 2}}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				past := OpenHistory(r.dir)
				for _, e := range c.history {
					if _, err := past.Add(e); err != nil {
						t.Fatal(err)
					}
				}
				for _, id := range []uint64{3, 4, 5} {
					r.driver.outlived(id, "v"+string(rune('0'+id)))
					r.router.connections(id, 1)
				}
				r.start()
				defer r.stop()
				r.wantRouted(c.current)
				r.wantRunning(3, 4, 5) // none is forgotten while it has connections
				a := r.promote("v9")
				if highest := max(past.Highest(), 5); a.Gen != highest+1 {
					t.Errorf("number %d after %d", a.Gen, highest)
				}
			})
		})
	}
}

// killedAt are the steps that Config.Fault tells of, in a promote that starts
// its generation.
var killedAt = []string{"start", "identified", "started", "prove", "switch", "prepared", "routed", "committed", "answer"}

// TestSupervisorAfterAKillAtEachStep takes what the disk and the processes are
// at each step of a promote, and starts another proxyd on that.
func TestSupervisorAfterAKillAtEachStep(t *testing.T) {
	for _, verb := range []string{"promote", "revert"} {
		for _, step := range killedAt {
			t.Run(verb+" "+step, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { killAndStart(t, verb, step) })
			})
		}
	}
}

func killAndStart(t *testing.T, verb, step string) {
	first, second := newRig(t), newRig(t)
	armed, hit := false, false
	first.fault = func(at string) {
		if !armed || hit || at != step {
			return
		}
		hit = true
		copyDir(t, first.dir, second.dir)
		copyDir(t, first.runtime, second.runtime)
		for _, id := range first.driver.running() {
			second.driver.outlived(id, first.driver.alive[id].release)
		}
	}
	first.policy.KeepPrevious = 0 // so that the revert has to start a process
	first.start()
	first.promote("v2")
	synctest.Wait()
	armed = true
	if verb == "promote" {
		first.promote("v3")
	} else {
		first.revert()
	}
	synctest.Wait()
	first.stop()
	strictlyAfter := step == "committed" || step == "answer"
	if !hit {
		if verb == "revert" && strings.Contains("prepared routed committed", step) {
			return // a revert switches first and writes after
		}
		t.Fatalf("no step %q", step)
	}
	second.start()
	defer second.stop()
	next := uint64(3)
	if verb == "revert" {
		next = 1
	}
	want := uint64(2)
	if strictlyAfter {
		want = next
	}
	second.wantRouted(want)
	wait(time.Minute)
	second.wantRouted(want)
	running := []uint64{want}
	if strictlyAfter { // the one before drained, and stands by
		running = append(running, 2)
		slices.Sort(running)
	}
	second.wantRunning(running...)
	if a := second.promote("v4"); a.Verdict != Done || a.Gen <= 2 || (verb == "promote" && a.Gen != 4) {
		t.Errorf("the next promote: %+v", a)
	}
}
