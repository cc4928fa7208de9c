package main

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// counting counts what is in flight for those who ask, at a bounded price: a look at
// all sockets takes some milliseconds where there are thousands, and anybody who may
// ask for status could ask over and over. After one that took a millisecond of a
// processor there is none for countShare milliseconds. Who asks meanwhile waits for
// the next, which begins after he asked and is one for all who wait: so the answer
// is late, never old.
type counting struct {
	count func()
	cost  func(func()) time.Duration // does it, and gives the time of a processor that it took

	one   chan struct{} // has a place for who counts, and rests before that
	rests time.Time     // until then; of who has the place

	mu   sync.Mutex
	next chan struct{} // closed once the look is done that did not begin yet; nil: nobody waits for one
}

const (
	countShare = 25
	// longestRest bounds that: it is somebody who waits.
	longestRest = 500 * time.Millisecond
)

func newCounting(count func()) *counting {
	return &counting{count: count, cost: processorTime, one: make(chan struct{}, 1)}
}

// fresh counts. It returns once a count is done that began after the call.
func (c *counting) fresh() {
	c.mu.Lock()
	if next := c.next; next != nil {
		c.mu.Unlock()
		<-next
		return
	}
	done := make(chan struct{})
	c.next = done
	c.mu.Unlock()
	defer close(done)
	c.one <- struct{}{}
	defer func() { <-c.one }()
	time.Sleep(time.Until(c.rests))
	c.mu.Lock()
	c.next = nil
	c.mu.Unlock()
	cost := c.cost(c.count)
	c.rests = time.Now().Add(min(countShare*cost, longestRest))
}

// unlessResting is fresh for an answer that must not be late: during a rest the
// counts stay as they are, from before it.
func (c *counting) unlessResting() {
	select {
	case c.one <- struct{}{}:
	default:
		return // somebody counts, or will
	}
	rests := time.Now().Before(c.rests)
	<-c.one
	if !rests {
		c.fresh()
	}
}

// processorTime is not the time that passes: on a busy machine that says nothing of
// what a look costs.
func processorTime(do func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	do()
	return threadTime() - before
}

func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
