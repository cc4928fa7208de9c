package backend

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// The data path wishes another generation of the current release: it is started
// once probation is over, runs what the current one runs, and takes its place.
func TestSupervisorMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.promote("v2")
		synctest.Wait()
		r.driver.mu.Lock()
		r.driver.planned = ", as a reload wants it now"
		r.driver.startErr["v2"] = errors.New("no free member")
		r.driver.mu.Unlock()
		r.router.wishes(2)
		r.router.connections(2, 1)
		wait(r.policy.Probation - 1)
		r.wantRunning(1, 2)
		wait(1) // too early for some other reason than probation
		r.wantState(3, Failed)
		r.wantRouted(2)
		r.driver.mu.Lock()
		delete(r.driver.startErr, "v2")
		r.driver.mu.Unlock()
		wait(moveAgain / 2)
		r.wantRunning(1, 2)
		wait(moveAgain)
		r.wantRouted(4)
		r.wantState(2, Draining)
		r.wantState(1, Standby)
		r.driver.mu.Lock()
		if !slices.Equal(r.driver.moves, []uint64{3, 4}) || r.driver.plans[4] != r.driver.plans[2] {
			t.Errorf("started for a move: %v, with plans %v", r.driver.moves, r.driver.plans)
		}
		r.driver.mu.Unlock()
		history, err := r.History(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(history, func(e Entry) bool {
			return e.Event == WhatMoved && e.Gen == 4 && e.From == 2 && e.By == "" && e.Reason == "to the direct path"
		}) {
			t.Errorf("history: %+v", history)
		}
		r.router.connections(2, 0)
		synctest.Wait()
		r.wantState(2, Stopped)
		if a := r.revert(); a.Gen != 1 || a.Started {
			t.Errorf("revert: %+v", a)
		}
		r.wantRouted(1)
	})
}

// A wish that proxyd is told of while it leaves is asked for once, not for ever.
func TestSupervisorLeavesWithAWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leave = true
		r.start()
		r.router.connections(1, 1)
		r.cancel()
		synctest.Wait()
		r.router.wishes(1)
		if a, err := r.Promote(t.Context(), "ann", 0, "v2", 0); err != nil || a.Verdict != Refused {
			t.Errorf("a promote while it ends: %s, %v", a.Verdict, err)
		}
		r.router.connections(1, 0)
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		r.wantRunning(1)
		r.driver.exit(1, "status 0")
	})
}
