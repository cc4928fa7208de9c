package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSystemd is one unit, that many connections may be made to. Nothing is told
// of it unless a test does.
type fakeSystemd struct {
	mu     sync.Mutex
	props  map[string]any
	state  string // of the whole system
	starts int
	// onStart is called with the lock held and gives what the call returns.
	onStart func() error
	result  chan string // of the start job; nil: nobody tells it
	dialErr error
	conns   []*fakeBus
	hangs   *fakeBus // gives no answer
	left    []int    // processes of its control group
	kills   []string // who was sent which signal
}

type fakeBus struct {
	f     *fakeSystemd
	names chan string
	once  sync.Once
	lost  chan struct{}
}

func (f *fakeSystemd) dial(context.Context) (bus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dialErr != nil {
		return nil, f.dialErr
	}
	b := &fakeBus{f: f, names: make(chan string, 8), lost: make(chan struct{})}
	f.conns = append(f.conns, b)
	return b, nil
}

func (f *fakeSystemd) set(props ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(props...)
}

func (f *fakeSystemd) put(props ...any) {
	for i := 0; i < len(props); i += 2 {
		f.props[props[i].(string)] = props[i+1]
	}
}

// drop ends the connection of the moment; err keeps new ones from being made.
func (f *fakeSystemd) drop(err error) {
	f.mu.Lock()
	f.dialErr = err
	b := f.conns[len(f.conns)-1]
	f.mu.Unlock()
	b.close()
}

func (b *fakeBus) changed() <-chan string { return b.names }
func (b *fakeBus) close()                 { b.once.Do(func() { close(b.lost); close(b.names) }) }

func (b *fakeBus) call() error {
	if closed(b.lost) {
		return errLost
	}
	return nil
}

func (b *fakeBus) start(context.Context, string) (<-chan string, error) {
	if err := b.call(); err != nil {
		return nil, err
	}
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.starts++
	return b.f.result, b.f.onStart()
}

func (b *fakeBus) stop(context.Context, string) (<-chan string, error) {
	b.f.set("ActiveState", "inactive", "MainPID", uint32(0))
	return nil, b.call()
}
func (b *fakeBus) kill(_ context.Context, _, who string, signal int32) error {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.kills = append(b.f.kills, fmt.Sprint(who, " ", signal))
	return b.call()
}

func (b *fakeBus) processes(context.Context, string) ([]int, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return b.f.left, b.call()
}

func (b *fakeBus) resetFailed(context.Context, string) error { return b.call() }
func (b *fakeBus) list(context.Context, string) ([]string, error) {
	return []string{"web@1.service"}, b.call()
}

// leave sets which processes of the control group do not end.
func (f *fakeSystemd) leave(pids ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = pids
}

func (b *fakeBus) systemState(context.Context) (string, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return b.f.state, b.call()
}

func (b *fakeBus) properties(ctx context.Context, _ string) (map[string]any, error) {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	if b.f.hangs == b {
		b.f.mu.Unlock()
		<-ctx.Done()
		b.f.mu.Lock()
		return nil, ctx.Err()
	}
	p := map[string]any{}
	for k, v := range b.f.props {
		p[k] = v
	}
	return p, b.call()
}

// up is what a running unit's properties are.
var up = []any{"ActiveState", "active", "SubState", "running", "MainPID", uint32(42),
	"InvocationID", []byte("0123456789abcdef"), "ExecMainStartTimestampMonotonic", uint64(7)}

func fakeDriver(t *testing.T) (*fakeSystemd, *Driver) {
	f := &fakeSystemd{props: map[string]any{"ActiveState": "inactive"}}
	f.onStart = func() error { f.put(up...); return nil }
	d, err := newDriver(t.Context(), Config{Unit: "web@{generation}.service"}, f.dial)
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

func TestWhatNobodyToldIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		if u.PID() != 42 {
			t.Error("its process is", u.PID())
		}
		f.set("ActiveState", "failed", "MainPID", uint32(0), "Result", "exit-code",
			"ExecMainCode", int32(1), "ExecMainStatus", int32(3), "ExecMainExitTimestampMonotonic", uint64(9))
		began := time.Now()
		<-u.Done()
		if passed := time.Since(began); passed > d.config.Poll {
			t.Error("it was seen only after", passed)
		}
		if got := u.Exit(); got != "its process exited with status 3" {
			t.Error(got)
		}
	})
}

// RemainAfterExit= keeps a unit active when nothing of it runs any more, also one
// that is taken over.
func TestAUnitWithoutAProcessHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.set("SubState", "exited", "MainPID", uint32(0), "Result", "success",
			"ExecMainCode", int32(1), "ExecMainStatus", int32(0), "ExecMainExitTimestampMonotonic", uint64(9))
		time.Sleep(time.Minute)
		synctest.Wait()
		const want = "its process exited with status 0"
		if got := u.Exit(); got != want || u.PID() != 0 {
			t.Errorf("its end is told as %q, its process is %d", got, u.PID())
		}
		again, err := d.Adopt(t.Context(), u.Identity())
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Exit(); got != want {
			t.Errorf("the end of what was taken over is told as %q", got)
		}
		if err := again.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if f.props["ActiveState"] != "inactive" {
			t.Error("it stays, so that it cannot be started again")
		}
	})
}

func TestAUnitThatRunsToItsEndIsNoGeneration(t *testing.T) {
	f, d := fakeDriver(t)
	defer d.Close()
	f.set("LoadState", "loaded", "Type", "oneshot")
	if _, err := d.Start(t.Context(), 1, "v1", new(identityList).record); !errors.Is(err, errOneShot) || f.starts != 0 {
		t.Errorf("it was started %d times: %v", f.starts, err)
	}
	if err := d.Check(t.Context(), 1, "v1"); !errors.Is(err, errOneShot) {
		t.Error("check says", err)
	}
}

// Of a unit that nothing ran of only its job tells why, which comes by itself: it
// is waited for, and no longer than one that was lost would take.
func TestWhyNothingRanIsWaitedFor(t *testing.T) {
	for told, want := range map[string]string{
		"dependency":  "a unit that its unit needs did not start (dependency)",
		"canceled":    "somebody canceled the start of its unit (canceled)",
		"skipped":     "its unit was skipped, for a condition of it does not hold",
		"timeout":     "its unit did not begin to start in time (timeout)",
		"unsupported": "its unit was not started (unsupported)",
		"":            "its unit was skipped, or ran what ended at once without an error",
	} {
		synctest.Test(t, func(t *testing.T) {
			f, d := fakeDriver(t)
			defer d.Close()
			f.result = make(chan string, 1)
			f.onStart = func() error { return nil }
			began := time.Now()
			if told != "" {
				time.AfterFunc(resultGrace/2, func() { f.result <- told })
			}
			u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
			if err != nil {
				t.Fatal(err)
			}
			<-u.Done()
			if got := u.Exit(); got != want || time.Since(began) > resultGrace {
				t.Errorf("a start that is %q is told as %q after %v", told, got, time.Since(began))
			}
		})
	}
}

// A connection that is lost for long says nothing of the units.
func TestALostConnectionEndsNoUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.drop(errors.New("nobody listens"))
		time.Sleep(time.Hour) // of the bubble's time
		if closed(u.Done()) {
			t.Fatal("the unit seems ended:", u.Exit())
		}
		f.set("ActiveState", "inactive", "InvocationID", []byte{}, "MainPID", uint32(0))
		f.mu.Lock()
		f.dialErr = nil
		f.mu.Unlock()
		<-u.Done()
		if got := u.Exit(); got != "its process ended, and systemd saw no error in it" {
			t.Error(got)
		}
	})
}

// A connection that is open and gives no answer is not waited for for ever.
func TestAConnectionThatHangsIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.hangs = f.conns[0]
		f.mu.Unlock()
		f.set("ActiveState", "inactive", "InvocationID", []byte{}, "MainPID", uint32(0))
		began := time.Now()
		<-u.Done()
		if passed := time.Since(began); passed > 2*callLimit {
			t.Error("its end was seen only after", passed)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.conns) != 2 {
			t.Errorf("%d connections were made", len(f.conns))
		}
	})
}

// The answer to a start may be lost: it is not asked for twice if it was taken,
// and asked for again if it was not.
func TestAStartWhoseAnswerIsLost(t *testing.T) {
	for _, taken := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f, d := fakeDriver(t)
			defer d.Close()
			f.onStart = func() error {
				if taken || f.starts > 1 {
					f.put(up...)
				}
				if f.starts == 1 {
					go f.drop(nil) // ends at once
					return errLost
				}
				return nil
			}
			u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 1, false: 2}[taken]; f.starts != want {
				t.Errorf("taken %v: it was started %d times", taken, f.starts)
			}
			if u.Identity().Invocation == "" {
				t.Error("its invocation is not known")
			}
			synctest.Wait()
		})
	}
}

// A caller that gives up while systemd is asked leaves nothing, also where
// systemd has taken the job.
func TestAStartGivenUpWhileItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		ctx, cancel := context.WithCancel(t.Context())
		f.onStart = func() error { f.put(up...); cancel(); return ctx.Err() }
		if _, err := d.Start(ctx, 1, "v1", new(identityList).record); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if f.props["ActiveState"] != "inactive" {
			t.Errorf("it is %v", f.props["ActiveState"])
		}
	})
}

// The next run's life is not this one's.
func TestAnotherInvocationIsAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.set("InvocationID", []byte("fedcba9876543210"))
		<-u.Done()
		if got := u.Exit(); got != "its unit was started anew by somebody else" {
			t.Error(got)
		}
	})
}

func TestCloseEndsAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		f.onStart = func() error { f.put("ActiveState", "activating"); return nil }
		failed := make(chan error)
		go func() { // ends with Start, which Close ends
			_, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
			failed <- err
		}()
		synctest.Wait()
		d.Close()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := d.Start(t.Context(), 1, "v1", new(identityList).record); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// identityList collects what Start records.
type identityList []Identity

func (i *identityList) record(id Identity) error { *i = append(*i, id); return nil }

// How the run before ended is remembered by systemd, and is not this one's end.
func TestTheEndOfTheRunBeforeIsNotTaken(t *testing.T) {
	f, d := fakeDriver(t)
	defer d.Close()
	f.set("ActiveState", "failed", "InvocationID", []byte("0000000000000000"), "Result", "exit-code",
		"ExecMainCode", int32(1), "ExecMainStatus", int32(3),
		"ExecMainStartTimestampMonotonic", uint64(7), "ExecMainExitTimestampMonotonic", uint64(9))
	f.onStart = func() error { f.put("InvocationID", []byte("0123456789abcdef")); return nil }
	u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
	if err != nil {
		t.Fatal(err)
	}
	<-u.Done()
	if got := u.Exit(); got != "its unit failed before its main process ran (exit-code)" {
		t.Error(got)
	}
}

func TestAUnitThatOthersStartedIsNotStarted(t *testing.T) {
	f, d := fakeDriver(t)
	defer d.Close()
	f.set(up...)
	if _, err := d.Start(t.Context(), 1, "v1", new(identityList).record); !errors.Is(err, ErrRunning) {
		t.Error(err)
	}
	if f.starts != 0 {
		t.Error("systemd was asked to start it")
	}
}

// While the whole system goes down, the end of a unit is not the generation's.
func TestAnEndWhileTheSystemGoesDownIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, d := fakeDriver(t)
		defer d.Close()
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.state = "stopping"
		f.mu.Unlock()
		f.set("ActiveState", "inactive", "MainPID", uint32(0))
		time.Sleep(time.Minute)
		synctest.Wait()
		if closed(u.Done()) {
			t.Error("its end was told:", u.Exit())
		}
		f.mu.Lock()
		f.state = "running"
		f.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if !closed(u.Done()) {
			t.Error("its end was not told afterwards")
		}
	})
}
