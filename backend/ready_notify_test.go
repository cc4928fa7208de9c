package backend

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// proving runs a proof in the bubble; done gives its end.
func startProof(t *testing.T, r Readiness, run Run) (p *proof, done <-chan error) {
	r.Interval, r.Timeout = time.Second, 5*time.Second
	p = newProof(r, run)
	ended := make(chan error, 1)
	go func() { ended <- p.prove(t.Context()) }()
	synctest.Wait()
	return p, ended
}

func wantUnready(t *testing.T, p *proof, done <-chan error, why string) {
	t.Helper()
	select {
	case err := <-done:
		t.Errorf("it ended, with %v", err)
	default:
	}
	if last := p.lastFailure(); !strings.Contains(last, why) {
		t.Errorf("it last said %q, not %q", last, why)
	}
}

func wantReady(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	default:
		t.Error("not ready")
	}
}

// One of which it is known that it will speak is not proven by a connect first.
func TestAutoWaitsForOneThatTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, done := startProof(t, Readiness{Check: CheckAuto}, &checkedRun{tells: true}) // a connect would succeed
		wait(time.Hour)
		wantUnready(t, p, done, "READY=1 has not been sent")
		p.tell(Notice{Ready: true})
		synctest.Wait()
		wantReady(t, done)
	})
}

func TestNotifyWaitsForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, done := startProof(t, Readiness{Check: CheckNotify}, &checkedRun{})
		wantUnready(t, p, done, "READY=1 has not been sent")
		p.tell(Notice{Status: "loading"})
		wait(time.Hour)
		wantUnready(t, p, done, `status: "loading"`)
		p.tell(Notice{Ready: true})
		synctest.Wait()
		wantReady(t, done)
	})
}

func TestNotifyKeepsReadyAmongMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProof(Readiness{Check: CheckNotify, Interval: time.Second, Timeout: time.Second}, &checkedRun{})
		p.tell(Notice{Ready: true})
		for range 100 {
			p.tell(Notice{Status: "busy"})
		}
		if err := p.prove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestAutoBecomesNotify: once it speaks its word counts, though it accepts.
func TestAutoBecomesNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		run := &checkedRun{addresses: map[string]net.Addr{"http": &net.UnixAddr{Net: "unix", Name: path}}}
		p, done := startProof(t, Readiness{Check: CheckAuto}, run)
		wantUnready(t, p, done, "no such file")
		p.tell(Notice{Status: "warming up"})
		synctest.Wait()
		listen(t, "unix", path)
		wait(time.Hour)
		wantUnready(t, p, done, "it speaks sd_notify, but has not sent READY=1 (status: \"warming up\")")
		p.tell(Notice{Ready: true})
		synctest.Wait()
		wantReady(t, done)
	})
}

func TestAutoSpeaksWhileItIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, addresses := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
		var p *proof
		run := &checkedRun{addresses: addresses, waiting: func() int {
			p.tell(Notice{Status: "warming up"})
			return 0
		}}
		p = newProof(Readiness{Check: CheckAuto, Interval: time.Second, Timeout: time.Second}, run)
		done := make(chan error, 1)
		go func() { done <- p.prove(t.Context()) }()
		wait(time.Hour)
		wantUnready(t, p, done, "warming up")
		p.tell(Notice{Ready: true})
		synctest.Wait()
		wantReady(t, done)
	})
}

func TestAutoConnectsToTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		run := &checkedRun{addresses: map[string]net.Addr{"http": &net.UnixAddr{Net: "unix", Name: path}}}
		p, done := startProof(t, Readiness{Check: CheckAuto}, run)
		wait(time.Minute)
		wantUnready(t, p, done, "no such file")
		listen(t, "unix", path)
		wait(2 * time.Second)
		wantReady(t, done)
	})
}

// Whatever the check, a generation whose start may yet fail is not ready.
func TestReadyOnceItsStartIsOver(t *testing.T) {
	for _, check := range []Check{CheckAuto, CheckNotify, CheckConnect, CheckCommand} {
		synctest.Test(t, func(t *testing.T) {
			run := &checkedRun{command: func() error { return nil }, started: make(chan struct{})}
			p, done := startProof(t, Readiness{Check: check}, run)
			p.tell(Notice{Ready: true})
			wait(time.Hour)
			wantUnready(t, p, done, "its unit is still starting")
			close(run.started)
			synctest.Wait()
			wantReady(t, done)
		})
	}
}

// TestOthersHeedNoNotice: what it says of itself is no http answer.
func TestOthersHeedNoNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, done := startProof(t, Readiness{Check: CheckCommand}, &checkedRun{command: func() error { return errNotReady }})
		p.tell(Notice{Ready: true})
		wait(time.Hour)
		wantUnready(t, p, done, errNotReady.Error())
	})
}

func TestCommandSucceedsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, n := time.Now(), 0
		var at []time.Duration
		run := &checkedRun{command: func() error {
			at = append(at, time.Since(began))
			if n++; n == 2 || n == 4 {
				return errNotReady
			}
			return nil
		}}
		_, done := startProof(t, Readiness{Check: CheckCommand, Successes: 3}, run)
		wait(time.Hour)
		wantReady(t, done)
		if n != 7 {
			t.Errorf("ready after %d tries at %v", n, at)
		}
	})
}

// TestTriesArePaced: quickly at first, then at the interval.
func TestTriesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		run := &checkedRun{command: func() error { at = append(at, time.Since(began)); return errNotReady }}
		startProof(t, Readiness{Check: CheckCommand}, run)
		wait(10 * time.Second)
		if len(at) < 9 || at[0] != 0 || at[1] != firstTry || at[2] != 3*firstTry {
			t.Fatalf("tries at %v", at)
		}
		if n := len(at); at[n-1]-at[n-2] != time.Second {
			t.Errorf("tries at %v", at)
		}
	})
}

func TestProofEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p := newProof(Readiness{Check: CheckNotify, Interval: time.Second, Timeout: time.Second}, &checkedRun{})
		if err := p.prove(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
