package main

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever asks how often, counting takes a 25th of a processor; each gets a count
// that began after he asked, and all who wait get the same one.
func TestCountingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cost = 10 * time.Millisecond
		var began []time.Time
		c := newCounting(func() {
			began = append(began, time.Now())
			time.Sleep(cost)
		})
		c.cost = func(do func()) time.Duration { do(); return cost }
		start := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for time.Since(start) < 10*time.Second {
					asked := time.Now()
					c.fresh()
					if last := began[len(began)-1]; last.Before(asked) {
						t.Errorf("asked at %s, the count began at %s", asked, last)
					}
				}
			})
		}
		all.Wait()
		if most := int(10*time.Second/(countShare*cost)) + 2; len(began) > most || len(began) < most/2 {
			t.Errorf("%d counts in ten seconds, want up to %d", len(began), most)
		}
		// Who cannot wait does not.
		n, asked := len(began), time.Now()
		c.unlessResting()
		if len(began) != n || time.Since(asked) != 0 {
			t.Errorf("it was counted during a rest, or waited for: %s", time.Since(asked))
		}
		time.Sleep(countShare * cost)
		if c.unlessResting(); len(began) != n+1 {
			t.Error("it was not counted after the rest")
		}
	})
}

// A look that is dear keeps nobody waiting for long.
func TestCountingRestsNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounting(func() {})
		c.cost = func(do func()) time.Duration { do(); return time.Minute }
		c.fresh()
		asked := time.Now()
		c.fresh()
		if waited := time.Since(asked); waited != longestRest {
			t.Errorf("waited for %s", waited)
		}
	})
}
