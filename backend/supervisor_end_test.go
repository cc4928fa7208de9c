package backend

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSupervisorEndsAfterTheLastConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		r.promote("v2")
		synctest.Wait()
		r.router.connections(2, 1)
		r.cancel()
		wait(10 * time.Second)
		if !r.router.isSealed() {
			t.Error("new connections are taken")
		}
		if st, err := r.Status(t.Context()); err != nil || st.State != ServiceWaiting {
			t.Errorf("the service is %s, %v", st.State, err)
		}
		r.wantRunning(2) // 1 stood by: it is ended at once
		r.router.connections(2, 0)
		r.stop()
		if r.router.wasCut(2) {
			t.Error("cut, though it drained in time")
		}
		if d := r.onDisk(); d.Current != 2 {
			t.Errorf("generation %d is current on disk", d.Current)
		}
	})
}

func TestSupervisorEndsWithWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.driver.does("v1", behavior{ignoreTerm: true})
		r.start()
		r.router.connections(1, 1)
		began := time.Now()
		r.stop()
		if took := time.Since(began); took != r.policy.ShutdownDrain+r.policy.StopTimeout {
			t.Errorf("took %s", took)
		}
		if !r.router.wasCut(1) {
			t.Error("what was in flight was not cut")
		}
	})
}

func TestSupervisorKillAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.driver.does("v1", behavior{ignoreTerm: true})
		r.start()
		r.router.connections(1, 1)
		began := time.Now()
		r.cancel()
		synctest.Wait()
		r.Hurry()
		r.stop()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}

func TestSupervisorEndsWithinAPromote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		r.driver.does("v2", behavior{unready: errNotReady})
		answer := make(chan Answered, 1)
		go func() { answer <- r.promote("v2") }()
		synctest.Wait()
		r.stop()
		wantVerdict(t, <-answer, Superseded)
	})
}

func TestSupervisorHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		r.stop()
		_, promote := r.Promote(t.Context(), "ann", 0, "v2", 0)
		_, status := r.Status(t.Context())
		_, history := r.History(t.Context(), 0)
		_, events := r.Supervisor.Events(t.Context(), 0)
		for _, err := range []error{promote, status, history, events} {
			if !errors.Is(err, ErrEnded) {
				t.Errorf("error %v", err)
			}
		}
		r.Hurry()
	})
}

func TestSupervisorEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		past, err := r.History(t.Context(), 0)
		if err != nil || len(past) < 3 {
			t.Fatalf("history %v, %v", past, err)
		}
		events, err := r.Supervisor.Events(t.Context(), past[0].Seq)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left, err := r.Supervisor.Events(ctx, past[len(past)-1].Seq)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, ok := <-left; ok {
			t.Error("an event after its reader left")
		}
		r.promote("v2")
		r.stop()
		seq, promoted := past[0].Seq, false
		for e := range events { // closed by the end
			if seq++; e.Seq != seq {
				t.Errorf("event %d instead of %d", e.Seq, seq)
			}
			promoted = promoted || e.Event == WhatPromoted && e.Gen == 2 && e.By == "ann" && e.Release == "v2"
		}
		if !promoted {
			t.Error("the promote is not among the events")
		}
	})
}

func TestSupervisorCutsOffAReaderThatSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		past := OpenHistory(r.dir)
		for range historyKept {
			if _, err := past.Add(Entry{Event: WhatHeld}); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		defer r.stop()
		events, err := r.Supervisor.Events(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for range cap(events) {
			if _, err := r.Hold(t.Context(), "ann", 0); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Resume(t.Context(), "ann"); err != nil {
				t.Fatal(err)
			}
			if len(events) == cap(events) {
				break
			}
		}
		if _, err := r.Hold(t.Context(), "ann", 0); err != nil {
			t.Fatal(err)
		}
		n := 0
		for range events {
			n++
		}
		if n != cap(events) {
			t.Errorf("%d events before it was cut off", n)
		}
	})
}
