package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// What is said of the rest is what is known of the request.
func TestGoesOnOnlyIfItWasAskedFor(t *testing.T) {
	c := change{timeout: time.Second}
	var far reach
	for _, step := range []struct {
		then func()
		says string
	}{
		{func() {}, "nothing was asked for"},
		{func() { far.connected.Store(true) }, "is not known"},
		{func() { far.written.Store(true) }, "it goes on"},
	} {
		step.then()
		for _, err := range []error{context.DeadlineExceeded, context.Canceled} {
			got := c.goesOn(err, &far, "the promote", "it").Error()
			if !strings.Contains(got, step.says) || strings.Contains(got, "goes on") != far.written.Load() {
				t.Errorf("%v: %q, want %q", err, got, step.says)
			}
		}
	}
}
