package backend

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a Supervisor with a scripted driver and router, in fake time. Only
// within synctest.Test.
type rig struct {
	t       *testing.T
	dir     string // of the state
	runtime string
	driver  *fakeDriver
	router  *fakeRouter
	policy  Policy
	leave   bool
	fault   func(string)

	*Supervisor
	cancel context.CancelFunc
	ended  chan error
}

func newRig(t *testing.T) *rig {
	return &rig{
		t: t, dir: t.TempDir(), runtime: t.TempDir(), driver: newFakeDriver(), router: newFakeRouter(),
		policy: Policy{
			ReadyDeadline: 30 * time.Second, Probation: 30 * time.Second, DrainDeadline: 10 * time.Minute,
			KeepPrevious: 10 * time.Minute, StopTimeout: 20 * time.Second, ShutdownDrain: time.Minute, MaxDraining: 8,
		},
	}
}

// start opens the state and runs a Supervisor on it until stop.
func (r *rig) start() *rig {
	r.t.Helper()
	store, durable, known, _, err := OpenStore(r.dir, r.runtime)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Supervisor, err = New(Config{
		Service: "web", Release: "v1", Policy: r.policy,
		Readiness: Readiness{Check: CheckCommand, Interval: time.Second, Timeout: 5 * time.Second},
		Driver:    r.driver, Router: r.router, Store: store, Durable: durable, Known: known,
		History: OpenHistory(r.dir), Fault: r.fault, Leave: r.leave,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
	return r
}

// stop ends the Supervisor as a stop signal does.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
	if left := r.driver.running(); len(left) > 0 {
		r.t.Errorf("generations %v were left over", left)
	}
}

func (r *rig) promote(release string) Answered {
	r.t.Helper()
	a, err := r.Promote(r.t.Context(), "ann", 0, release, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) revert() Answered {
	r.t.Helper()
	a, err := r.Revert(r.t.Context(), "ann", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) state(id uint64) GenerationStatus {
	r.t.Helper()
	st, err := r.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(st.Generations, func(g GenerationStatus) bool { return g.ID == id })
	if i < 0 {
		r.t.Fatalf("generation %d is not in the status", id)
	}
	return st.Generations[i]
}

func (r *rig) wantState(id uint64, want State) {
	r.t.Helper()
	if got := r.state(id).State; got != want {
		r.t.Errorf("generation %d is %s, not %s", id, got, want)
	}
}

func (r *rig) wantRouted(want uint64) {
	r.t.Helper()
	if got := r.router.routed(); got != want {
		r.t.Errorf("new connections go to %d, not %d", got, want)
	}
}

func (r *rig) wantRunning(want ...uint64) {
	r.t.Helper()
	if got := r.driver.running(); !slices.Equal(got, want) {
		r.t.Errorf("generations %v run, not %v", got, want)
	}
}

func wantVerdict(t *testing.T, a Answered, want Verdict) {
	t.Helper()
	if a.Verdict != want {
		t.Errorf("%s (%s), not %s", a.Verdict, a.Reason, want)
	}
}

// wait lets fake time pass, and everything happen that follows.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// onDisk gives the state as a proxyd that starts now would read it.
func (r *rig) onDisk() Durable {
	r.t.Helper()
	_, d, _, _, err := OpenStore(r.dir, filepath.Join(r.runtime, "none"))
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}
