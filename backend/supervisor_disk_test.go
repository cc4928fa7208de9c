package backend

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// takesNoMore makes a directory one in which nothing can be written, also by
// root; the function that it gives makes it one again.
func takesNoMore(t *testing.T, dir string) (again func()) {
	t.Helper()
	aside := dir + ".aside"
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, dir); err != nil {
			t.Fatal(err)
		}
	}
}

// onFullDisk plays f with a current generation 2 and a standby 1 while the state
// directory, and perhaps the runtime directory, takes nothing.
func onFullDisk(t *testing.T, f func(t *testing.T, r *rig, both bool)) {
	for name, both := range map[string]bool{"state": false, "state and runtime": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t).start()
				defer r.stop()
				r.promote("v2")
				wait(r.policy.Probation)
				defer takesNoMore(t, r.dir)()
				if both {
					defer takesNoMore(t, r.runtime)()
				}
				f(t, r, both)
			})
		})
	}
}

func TestFullDiskRefusesPromote(t *testing.T) {
	onFullDisk(t, func(t *testing.T, r *rig, both bool) {
		before := r.state(2)
		a := r.promote("v3")
		if a.Verdict == Done || !strings.Contains(a.Reason, "write state") {
			t.Errorf("%s (%s)", a.Verdict, a.Reason)
		}
		synctest.Wait()
		r.wantRouted(2)
		r.wantRunning(1, 2)
		r.wantState(1, Standby)
		if after := r.state(2); after != before {
			t.Errorf("generation 2 was %+v, is %+v", before, after)
		}
	})
}

func TestFullDiskReverts(t *testing.T) {
	onFullDisk(t, func(t *testing.T, r *rig, both bool) {
		wantVerdict(t, r.revert(), Done)
		r.wantRouted(1)
	})
}

func TestFullDiskStartsADeadCurrentAgain(t *testing.T) {
	onFullDisk(t, func(t *testing.T, r *rig, both bool) {
		r.driver.exit(2, "status 1")
		wait(time.Second)
		r.wantRouted(2)
		r.wantRunning(1, 2)
	})
}

func TestFullDiskServesTheFirstGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer takesNoMore(t, r.dir)()
		r.start()
		defer r.stop()
		wait(time.Minute)
		r.wantRouted(1)
		if n := len(r.driver.starts); n != 1 {
			t.Errorf("started %d times", n)
		}
	})
}

func TestFullDiskIsWrittenOnceItTakesMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.policy.KeepPrevious, r.policy.DrainDeadline = 0, 0 // no timer that saves by itself
		r.start()
		defer r.stop()
		r.router.connections(1, 1)
		r.promote("v2")
		r.router.connections(2, 1)
		synctest.Wait()
		again := takesNoMore(t, r.dir)
		r.revert()
		wait(2 * saveAgain)
		again()
		if d := r.onDisk(); d.Current != 2 {
			t.Fatalf("generation %d is current on a disk that took nothing", d.Current)
		}
		wait(saveAgain)
		if d := r.onDisk(); d.Current != 1 {
			t.Errorf("generation %d is current on disk, long after the revert", d.Current)
		}
	})
}

func TestFullDiskIsRememberedInTheRuntimeDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newRig(t).start()
		first.promote("v2")
		synctest.Wait()
		again := takesNoMore(t, first.dir)
		first.revert()
		synctest.Wait()
		second := newRig(t)
		for _, id := range first.driver.running() {
			second.driver.outlived(id, first.driver.alive[id].release)
		}
		again()
		copyDir(t, first.dir, second.dir)
		copyDir(t, first.runtime, second.runtime)
		first.stop()
		second.start()
		defer second.stop()
		second.wantRouted(1)
	})
}

// TestCommittedStateIsStamped: a proxyd that is killed right after the commit
// leaves behind since when the states hold.
func TestCommittedStateIsStamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var committed Durable
		r.fault = func(at string) {
			if at == "committed" {
				committed = r.onDisk()
			}
		}
		r.start()
		defer r.stop()
		wait(time.Hour)
		now := time.Now()
		r.promote("v2")
		if len(committed.Generations) != 2 {
			t.Fatalf("committed %+v", committed)
		}
		for _, g := range committed.Generations {
			if !g.Since.Equal(now) {
				t.Errorf("generation %d is %s since %s, at %s", g.ID, g.State, g.Since, now)
			}
		}
	})
}

// TestPromoteWhoseCommitFails: the file cannot be renamed into place, after the
// route was switched already. Who came in between is served to the end.
func TestPromoteWhoseCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var again func()
		armed := false
		r.fault = func(at string) {
			if armed && at == "routed" {
				armed = false
				r.wantRouted(2)
				r.router.connections(2, 1)
				again = takesNoMore(t, r.dir)
			}
		}
		r.start()
		defer r.stop()
		armed = true
		a := r.promote("v2")
		if again == nil {
			t.Fatal("never routed")
		}
		again()
		wantVerdict(t, a, Refused)
		synctest.Wait()
		r.wantRouted(1)
		r.wantRunning(1, 2)
		r.wantState(2, Draining) // a client was faster than the failure
		r.router.connections(2, 0)
		synctest.Wait()
		r.wantRunning(1)
		if g := r.state(2); g.State != Failed || g.Reason == "" {
			t.Errorf("generation 2: %+v", g)
		}
		wait(saveAgain)
		if d := r.onDisk(); d.Current != 1 {
			t.Errorf("generation %d is current on disk", d.Current)
		}
	})
}
