package backend

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A current generation that outlived proxyd and can be given no connections is
// replaced by another run of what it runs, which does not wait for its end: neither
// for its clients, nor for a program that does not heed the stop signal.
func TestSupervisorReplacesAStrandedGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.written(Durable{Next: 2, Current: 1, Generations: []DurableGeneration{
			{ID: 1, Release: "v1", State: Current, Origin: "first"},
		}})
		const why = "its sockets are of another address"
		r.driver.apart = map[uint64]string{1: why}
		r.driver.does("v1", behavior{ignoreTerm: true})
		r.driver.outlived(1, "v1")
		r.driver.planned = ", of another config"
		r.router.connections(1, 1)
		r.start()
		defer r.stop()
		wait(time.Second)
		r.wantRouted(2)
		r.wantRunning(1, 2)
		if len(r.driver.moves) > 0 || r.driver.plans[2] != `"v1"` {
			t.Errorf("moves %v; generation 2 runs %s", r.driver.moves, r.driver.plans[2])
		}
		if g := r.state(1); g.State != Draining || g.Reason != why || g.Counts.InFlight != 1 {
			t.Errorf("generation 1: %+v", g)
		}
		if slices.Contains(r.driver.swept, 1) {
			t.Error("it was ended with its clients")
		}
		if d := r.onDisk(); d.Current != 2 {
			t.Errorf("generation %d is current on disk", d.Current)
		}
		r.router.connections(1, 0)
		synctest.Wait()
		r.wantState(1, Stopping)
		r.wantRouted(2)
		wait(r.cfg.Policy.StopTimeout)
		r.wantState(1, Stopped)
		r.wantRunning(2)
	})
}
