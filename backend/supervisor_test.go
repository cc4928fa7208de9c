package backend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSupervisorPromotesAndReverts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.wantRouted(1)
		a := r.promote("v2")
		wantVerdict(t, a, Done)
		if a.Gen != 2 || a.Release != "v2" || a.Previous != 1 || !a.Switched || !a.Started {
			t.Errorf("answer %+v", a)
		}
		r.wantRouted(2)
		if d := r.onDisk(); d.Current != 2 || d.Previous != 1 {
			t.Errorf("current %d, previous %d on disk when the promote is answered", d.Current, d.Previous)
		}
		synctest.Wait()
		r.wantState(1, Standby)
		before := time.Now()
		if a := r.revert(); a.Gen != 1 || a.Started || time.Since(before) != 0 {
			t.Errorf("revert to a standby took %s: %+v", time.Since(before), a)
		}
		r.wantRouted(1)
		r.router.connections(1, 3)
		r.revert() // forward again, while 1 has connections
		r.wantState(1, Draining)
		if a := r.revert(); a.Gen != 1 || a.Started || time.Since(before) != 0 {
			t.Errorf("revert to a draining one took %s: %+v", time.Since(before), a)
		}
		r.wantRouted(1)
	})
}

func TestSupervisorRevertStartsWhatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		defer r.stop()
		r.promote("v2")
		wait(r.policy.KeepPrevious - 1)
		r.wantRunning(1, 2)
		wait(1)
		r.wantRunning(2)
		r.wantState(1, Stopped)
		a := r.revert()
		if wantVerdict(t, a, Done); a.Gen != 1 || !a.Started || a.Release != "v1" {
			t.Errorf("answer %+v", a)
		}
		r.wantRouted(1)
	})
}

func TestSupervisorNeverReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.does("v2", behavior{unready: errNotReady, lines: []string{"starting", "cannot reach the database"}})
		began := time.Now()
		before := r.state(1)
		a := r.promote("v2")
		if took := time.Since(began); took != r.policy.ReadyDeadline {
			t.Errorf("answered after %s", took)
		}
		wantVerdict(t, a, NotReady)
		for _, part := range []string{"not ready within 30s", "command check last said", "no database"} {
			if !strings.Contains(a.Reason, part) {
				t.Errorf("reason %q does not say %q", a.Reason, part)
			}
		}
		if !slices.Equal(a.LastLines, []string{"starting", "cannot reach the database"}) {
			t.Errorf("last lines %q", a.LastLines)
		}
		synctest.Wait()
		checks := r.driver.checks
		wait(time.Minute)
		if r.driver.checks != checks {
			t.Error("its check goes on after its end")
		}
		r.wantRouted(1)
		r.wantRunning(1)
		r.wantState(2, Failed)
		if after := r.state(1); after != before {
			t.Errorf("generation 1 was %+v, is %+v", before, after)
		}
	})
}

func TestSupervisorTellsWhatItWroteWhenItDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.does("v2", behavior{unready: errNotReady, lines: []string{"panic"}})
		answer := make(chan Answered, 1)
		go func() { answer <- r.promote("v2") }()
		synctest.Wait()
		if why := r.state(2).Reason; !strings.Contains(why, "no database") {
			t.Errorf("status does not tell what the check last saw: %q", why)
		}
		r.driver.exit(2, "status 2")
		a := <-answer
		wantVerdict(t, a, NotReady)
		if a.Reason != "status 2" || !slices.Equal(a.LastLines, []string{"panic"}) {
			t.Errorf("answer %+v", a)
		}
		r.wantRouted(1)
	})
}

func TestSupervisorCannotStart(t *testing.T) {
	for name, release := range map[string]string{"plan": "unplannable", "start": "missing", "route": "unroutable"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t).start()
				defer r.stop()
				r.driver.startErr["missing"] = errors.New("no such file")
				if name == "route" {
					r.router.refuse = 2
				}
				a := r.promote(release)
				wantVerdict(t, a, NotReady)
				r.wantRouted(1)
				r.wantRunning(1)
				r.wantState(2, Failed)
				for _, g := range r.onDisk().Generations {
					if g.ID == 2 && len(g.Identity) > 0 {
						t.Errorf("a process is written down that is not there: %s", g.Identity)
					}
				}
			})
		})
	}
}

func TestSupervisorClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.does("v2", behavior{unready: errNotReady})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Promote(ctx, "ann", 0, "v2", 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		r.driver.does("v2", behavior{})
		wait(2 * time.Second)
		r.wantRouted(2)
	})
}

func TestSupervisorOnePromoteAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.does("v2", behavior{unready: errNotReady})
		first := make(chan Answered, 1)
		go func() { first <- r.promote("v2") }()
		synctest.Wait()
		for range 3 {
			a := r.promote("v3")
			if wantVerdict(t, a, Superseded); !strings.Contains(a.Reason, "promote of generation 2 (v2)") {
				t.Errorf("reason %q", a.Reason)
			}
		}
		r.driver.does("v2", behavior{})
		wantVerdict(t, <-first, Done)
		r.wantRouted(2)
	})
}

func TestSupervisorForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.policy.KeepRecords = 1
		r.start()
		defer r.stop()
		for id := range uint64(4) {
			if a, err := r.Stage(t.Context(), "ann", "v2"); err != nil || a.Gen != id+2 {
				t.Fatalf("stage: %+v, %v", a, err)
			}
			if a, err := r.Stop(t.Context(), "ann", id+2, StopNow); err != nil || a.Release != "v2" {
				t.Fatalf("stop: %+v, %v", a, err)
			}
		}
		st, err := r.Status(t.Context())
		if err != nil || len(st.Generations) != 3 { // 1, and one more than is kept until the next starts
			t.Errorf("status %+v, %v", st, err)
		}
		if len(r.router.open) != len(st.Generations) {
			t.Errorf("the router still knows %v", r.router.open)
		}
		for key := range r.timers {
			if key.gen == 2 {
				t.Errorf("a timer of a generation that was forgotten: %v", key)
			}
		}
	})
}

func TestSupervisorStopCancelsPromote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.driver.does("v2", behavior{unready: errNotReady, ignoreTerm: true})
		first := make(chan Answered, 1)
		go func() { first <- r.promote("v2") }()
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(time.Second, func() {
			if g := r.state(2); g.State != Stopping || !g.KillAt.Equal(began.Add(r.policy.StopTimeout)) {
				t.Errorf("while it is stopping: %+v", g)
			}
		})
		a, err := r.Stop(t.Context(), "ann", 2, StopGraceful)
		if err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, a, Done)
		if took := time.Since(began); took != r.policy.StopTimeout {
			t.Errorf("it ignores the stop signal, and was ended after %s", took)
		}
		wantVerdict(t, <-first, Superseded)
		if g := r.state(2); !g.KillAt.IsZero() {
			t.Errorf("it has ended, and is to be killed: %+v", g)
		}
		r.wantRunning(1)
		if !slices.Contains(r.driver.released, 2) {
			t.Error("its sockets were not given up")
		}
	})
}
