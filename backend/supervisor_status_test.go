package backend

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// An operator's work shows, for as long as it takes.
func TestSupervisorTellsOfWorkInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		busy := func(want bool) {
			t.Helper()
			if st, err := r.Status(t.Context()); err != nil || st.Busy != want {
				t.Errorf("busy: %v, %v", st.Busy, err)
			}
		}
		busy(false)
		r.driver.does("v2", behavior{hangs: true})
		answer := make(chan Answered, 1)
		go func() { answer <- r.promote("v2") }() // ends with the deadline
		synctest.Wait()
		busy(true)
		<-answer
		busy(false)
	})
}

// Whoever asks for the status is not kept by a supervisor that stands still.
func TestSupervisorStatusGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		goOn := make(chan struct{})
		go func() { _ = r.call(t.Context(), func() { <-goOn }) }() // ends with goOn
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Status(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		close(goOn)
		if _, err := r.Status(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
