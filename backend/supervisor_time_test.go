package backend

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSupervisorProbation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.stop()
		r.promote("v2")
		wait(r.policy.Probation - 1)
		r.driver.exit(2, "status 7")
		synctest.Wait()
		r.wantRouted(1)
		r.wantState(2, Failed)
		entries, err := r.History(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		reverted := Entry{}
		for _, e := range entries {
			if e.Event == WhatReverted {
				reverted = e
			}
		}
		if reverted.Gen != 1 || reverted.From != 2 || reverted.By != "" || !strings.Contains(reverted.Reason, "status 7") {
			t.Errorf("the revert is recorded as %+v", reverted)
		}
	})
}

func TestSupervisorRestartsAfterProbation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.stop()
		r.promote("v2")
		wait(r.policy.Probation)
		run := r.driver.alive[2]
		r.driver.exit(2, "status 7")
		synctest.Wait()
		r.wantRouted(0)
		if g := r.onDisk().Generations[1]; g.ID != 2 || len(g.Identity) > 0 {
			t.Errorf("a process is written down that has ended: %+v", g)
		}
		if !run.cleared {
			t.Error("what it left behind was not cleared before its next start")
		}
		if st, _ := r.Status(t.Context()); st.State != ServiceWaiting {
			t.Errorf("the service is %s", st.State)
		}
		wait(restartFirst/2 + restartFirst) // the most that jitter makes of it, and more
		r.wantRouted(2)
		r.wantRunning(1, 2)
		if st, _ := r.Status(t.Context()); st.State != ServiceServing || st.Current != 2 {
			t.Errorf("the service is %s with %d", st.State, st.Current)
		}
	})
}

func TestSupervisorGivesUpOnADeadCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.stop()
		r.promote("v2")
		wait(r.policy.Probation)
		r.driver.does("v2", behavior{unready: errNotReady})
		for range restartTries {
			r.driver.exit(2, "status 7")
			wait(time.Second)
			r.wantRouted(0)
			r.wantState(2, Current)
		}
		r.driver.exit(2, "status 7")
		synctest.Wait()
		r.wantRouted(1)
	})
}

func TestSupervisorDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.policy.DrainDeadline = 2 * time.Second
		r.start()
		defer r.stop()
		r.router.connections(1, 1)
		r.promote("v2")
		at := time.Now().Add(r.policy.DrainDeadline)
		if d := r.state(1).DrainDeadline; !d.Equal(at) {
			t.Errorf("status says %s, not %s", d, at)
		}
		wait(r.policy.DrainDeadline - 1)
		r.wantState(1, Draining)
		if r.router.wasCut(1) {
			t.Error("cut before the deadline")
		}
		wait(1)
		if !r.router.wasCut(1) {
			t.Error("not cut at the deadline")
		}
		r.wantState(1, Stopped)
		r.wantRunning(2)
	})
}

func TestSupervisorDrainDeadlineBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.policy.DrainDeadline = 10 * time.Second
		r.start()
		defer r.stop()
		r.router.connections(1, 1)
		r.promote("v2")
		wait(9 * time.Second)
		r.revert()
		r.router.connections(1, 1)
		wait(5 * time.Second)
		r.revert()
		wait(9 * time.Second)
		r.wantState(1, Draining)
		wait(time.Second)
		r.wantState(1, Stopped)
	})
}

func TestSupervisorDrainEndsWithTheLastConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.policy.KeepPrevious = 0
		r.start()
		defer r.stop()
		r.router.connections(1, 2)
		r.promote("v2")
		wait(time.Minute)
		r.router.connections(1, 1)
		wait(time.Minute)
		r.wantState(1, Draining)
		if n := r.state(1).Counts.InFlight; n != 1 {
			t.Errorf("%d in flight", n)
		}
		r.router.connections(1, 0)
		synctest.Wait()
		r.wantState(1, Stopped)
		if r.router.wasCut(1) {
			t.Error("cut, though it drained")
		}
	})
}

func TestSupervisorHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		if a, err := r.Hold(t.Context(), "ann", 5*time.Second); err != nil || a.Verdict != Done {
			t.Fatalf("hold: %+v, %v", a, err)
		}
		until := time.Now().Add(5 * time.Second)
		st, err := r.Status(t.Context())
		if err != nil || st.State != ServiceHeld || !st.HeldUntil.Equal(until) {
			t.Errorf("status %+v, %v", st, err)
		}
		if d := r.onDisk(); !d.Held || !d.HeldUntil.Equal(until) {
			t.Errorf("on disk: held %t until %s", d.Held, d.HeldUntil)
		}
		wait(5*time.Second - 1)
		if !r.router.isHeld() {
			t.Error("let go before the limit")
		}
		wait(1)
		if r.router.isHeld() {
			t.Error("still held after the limit")
		}
		if st, err := r.Status(t.Context()); err != nil || st.State != ServiceServing || !st.HeldUntil.IsZero() {
			t.Errorf("status %+v, %v", st, err)
		}
		if d := r.onDisk(); d.Held || !d.HeldUntil.IsZero() {
			t.Errorf("on disk: held %t until %s", d.Held, d.HeldUntil)
		}
	})
}

func TestSupervisorRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.promote("v2")
		synctest.Wait()
		a, err := r.Retire(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, a, Done)
		r.wantRunning(2)
		r.wantState(1, Stopped)
	})
}
