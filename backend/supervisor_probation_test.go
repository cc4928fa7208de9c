package backend

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A proxyd that is restarted goes on with the probation that it finds: for what is
// left of it, and no longer.
func TestSupervisorProbationOutlivesProxyd(t *testing.T) {
	for _, c := range []struct {
		name       string
		away       time.Duration // how long no proxyd runs
		diesAway   bool
		waits      time.Duration // before it dies under the next one
		wantRouted uint64
	}{
		{"dies in what is left of it", 0, false, 19 * time.Second, 1},
		{"dies after it", 0, false, 21 * time.Second, 2},
		{"is over while proxyd is away", 25 * time.Second, false, 0, 2},
		{"dies while proxyd is away", 5 * time.Second, true, 0, 1},
		{"died, and it is over by now", 25 * time.Second, true, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.leave, r.policy.ShutdownDrain = true, 0
				r.start()
				r.promote("v2")
				wait(10 * time.Second)
				r.cancel()
				<-r.ended
				wait(c.away)
				if c.diesAway {
					r.driver.exit(2, "its process exited with status 1")
				}
				r.router.seal(false) // a new proxyd's does not
				r.leave = false
				r.start()
				defer r.stop()
				if !c.diesAway {
					wait(c.waits)
					r.wantRouted(2)
					r.driver.exit(2, "its process exited with status 1")
				}
				wait(time.Second)
				r.wantRouted(c.wantRouted)
			})
		})
	}
}

// What is left of a generation that has died is ended soon where clients wait for
// that, and else has the time that it takes.
func TestSupervisorHurriesOnlyForClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.promote("v2") // 1 stands by
		synctest.Wait()
		for _, id := range []uint64{1, 2} {
			r.driver.exit(id, "its process exited with status 1")
			synctest.Wait()
		}
		if got := r.driver.hurried; !slices.Equal(got, []uint64{2}) {
			t.Errorf("the ends of %v were hurried, not of the current one's alone", got)
		}
	})
}

// A run that is ready on the wrong sockets is started once more as part of the same
// promote, and is given no client before.
func TestSupervisorStartsAMisfitOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.misfits = map[uint64]string{2: "blocking accept"}
		wantVerdict(t, r.promote("v2"), Done)
		if want := []uint64{1, 2, 2}; !slices.Equal(r.driver.starts, want) {
			t.Errorf("started were %v, not %v", r.driver.starts, want)
		}
		r.wantRouted(2)
		r.wantRunning(1, 2)
	})
}

// What was asked of a draining generation is not forgotten either.
func TestSupervisorStopWhenDrainedOutlivesProxyd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leave = true
		r.start()
		r.router.connections(1, 1)
		r.promote("v2")
		if a, err := r.Stop(t.Context(), "ann", 1, StopGraceful); err != nil || a.Verdict != Done {
			t.Fatal(a, err)
		}
		r.cancel()
		<-r.ended
		r.router.seal(false)
		r.leave = false
		r.start()
		defer r.stop()
		r.wantState(1, Draining)
		r.router.connections(1, 0)
		wait(time.Second)
		r.wantState(1, Stopped)
	})
}
