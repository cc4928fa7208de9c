package backend

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Generations that outlive proxyd: it lets connections finish, ends, and the
// next one goes on with what runs.
func TestSupervisorLeavesItsGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leave = true
		r.start()
		r.promote("v2")
		synctest.Wait()
		r.router.connections(2, 1)
		r.cancel()
		wait(10 * time.Second)
		r.wantRouted(2) // what was accepted just now gets there
		if !r.router.isSealed() {
			t.Error("new connections are taken")
		}
		if a, err := r.Promote(t.Context(), "ann", 0, "v3", 0); err != nil || a.Verdict != Refused {
			t.Errorf("a promote while it ends: %s, %v", a.Verdict, err)
		}
		r.router.connections(2, 0)
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		r.wantRunning(1, 2)
		if r.router.wasCut(2) {
			t.Error("cut, though it drained in time")
		}
		r.router.seal(false) // a new proxyd's does not
		r.start()
		r.wantRouted(2)
		r.wantState(2, Current)
		r.wantState(1, Standby)

		r.router.connections(2, 1) // one that never ends
		began := time.Now()
		r.cancel()
		<-r.ended
		if took := time.Since(began); took != r.policy.ShutdownDrain {
			t.Errorf("it ended after %s", took)
		}
		r.start()
		began = time.Now()
		r.cancel()
		synctest.Wait()
		r.Hurry()
		<-r.ended
		if took := time.Since(began); took != 0 {
			t.Errorf("told twice, it ended after %s", took)
		}
		r.wantRunning(1, 2)
		r.leave = false
		r.start().stop()
	})
}

// A start that does not come back is given up when nobody wants it any more.
func TestSupervisorCancelsAStartThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		r.driver.does("v2", behavior{hangs: true})
		answer := make(chan Answered, 1)
		go func() { answer <- r.promote("v2") }() // ends with the deadline
		began := time.Now()
		wantVerdict(t, <-answer, NotReady)
		if took := time.Since(began); took != r.policy.ReadyDeadline {
			t.Errorf("took %s", took)
		}
		synctest.Wait()
		r.wantState(2, Failed)

		go func() { answer <- r.promote("v2") }() // ends with the stop
		synctest.Wait()
		if a, err := r.Stop(t.Context(), "ann", 3, StopGraceful); err != nil || a.Verdict != Done {
			t.Errorf("stop: %s (%s), %v", a.Verdict, a.Reason, err)
		}
		wantVerdict(t, <-answer, Superseded)

		// The current one too, whose start is then tried again.
		r.driver.does("v1", behavior{hangs: true})
		r.driver.exit(1, "its process exited with status 1")
		wait(r.policy.ReadyDeadline + time.Second)
		if g := r.state(1); g.State != Current || g.Reason != "it was not ready within 30s" {
			t.Errorf("generation 1 is %s: %s", g.State, g.Reason)
		}
		r.driver.does("v1", behavior{})
		wait(r.policy.ReadyDeadline + time.Second)
		r.wantRouted(1)

		// And where proxyd ends.
		r.driver.does("v1", behavior{hangs: true})
		r.driver.exit(1, "its process exited with status 1")
		wait(time.Second)
		r.stop()
	})
}

// What a driver knows of a start that came to nothing is shown.
func TestSupervisorShowsTheLinesOfAStartThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.startErr["v2"] = &StartError{Err: errors.New("no such unit"), Lines: []string{"bad setting"}}
		a := r.promote("v2")
		wantVerdict(t, a, NotReady)
		if len(a.LastLines) != 1 || a.LastLines[0] != "bad setting" {
			t.Errorf("the lines are %q", a.LastLines)
		}
	})
}
