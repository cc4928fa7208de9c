package proxy

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstLook = 2 * time.Millisecond
	lastLook  = time.Second
	// lookShare bounds the CPU that counting takes: a look that took 1 ms is
	// followed by at least this many ms without one.
	lookShare = 25
	// mostPause bounds that: to look late is worse than to look dearly.
	mostPause = 5 * time.Second
	// wholeLook is which look at what drains is a whole one.
	wholeLook = 16
)

// Drained gives a channel that is closed when new connections do not go to the
// generation, it has none left and also gives true, and when it is returned.
// also is called often, by one goroutine, and must not wait. Asked again before
// that, it gives the same channel and takes the new also.
func (d *Direct) Drained(generation uint64, also func() bool) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	if t.waiter == nil {
		t.waiter = &waiter{done: make(chan struct{})}
	}
	t.waiter.also = also
	d.wake()
	return t.waiter.done
}

// release tells whoever waits. Direct.mu is held.
func (t *tally) release() {
	if t.waiter != nil {
		close(t.waiter.done)
		t.waiter = nil
	}
}

// wake makes watch look soon.
func (d *Direct) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// watch looks at the generations that drain and that somebody waits for, and at
// what may still come to members that came back: often while something changes,
// ever less often while nothing does. It ends with Close, which waits for it.
func (d *Direct) watch() {
	defer close(d.ended)
	pause := firstLook
	timer := time.NewTimer(0)
	defer timer.Stop()
	var checked time.Time  // the places of the members
	runtime.LockOSThread() // its CPU time is measured
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-d.quit:
			return
		case <-d.kick:
			pause = firstLook
		case <-timer.C:
		}
		before := threadTime()
		changed, wanted := d.lookAtDraining()
		fewer, late := d.settle()
		changed, wanted = changed || fewer, wanted || late
		since := time.Since(checked)
		if d.changed() && since >= recheckPause {
			checked = time.Now()
			d.recheck()
		}
		cost := threadTime() - before
		if !wanted && !d.changed() {
			timer.Stop()
			continue
		}
		if !wanted {
			timer.Reset(max(recheckPause-since, firstLook))
			continue
		}
		if changed {
			pause = firstLook
		} else {
			pause = min(2*pause, lastLook)
		}
		timer.Reset(max(pause, min(lookShare*cost, mostPause)))
	}
}

// threadTime is the CPU time of this thread. Not the time that passed: on a busy
// machine that says nothing of what a look costs.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lookAtDraining counts what drains and tells who waits for it.
func (d *Direct) lookAtDraining() (changed, wanted bool) {
	d.counting.Lock()
	defer d.counting.Unlock()
	some, left := d.list(func(t *tally) bool { return t.left != 0 && t.waiter != nil })
	if len(some) == 0 {
		return false, false
	}
	few, held := true, 0
	for _, t := range some {
		// What is left can only become less. A whole look now and then, and at the
		// end, makes sure of that.
		few = few && t.since == left[t] && t.looks >= sureLooks && t.looks%wholeLook != 0 && t.counted.Load() > 0
		held += len(t.open) + len(t.handshakes)
	}
	few = few && held <= fewSockets
	changed, err := d.count(some, left, few)
	if err == nil && few && slices.ContainsFunc(some, func(t *tally) bool { return t.counted.Load() == 0 }) {
		changed = true
		_, err = d.count(some, left, false)
	}
	if err != nil {
		d.log.Warn("cannot count connections, trying again", "error", err)
		return false, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range some {
		if t.left != left[t] || t.looks < sureLooks || t.counted.Load() != 0 || t.spoiled {
			wanted = true
			continue
		}
		changed = true
		if w := t.waiter; w != nil && w.also != nil && !w.also() {
			wanted = true
			continue
		}
		t.release()
	}
	return changed, wanted
}

// Cut resets the connections that a generation's processes have, where that is
// permitted (SOCK_DESTROY, CAP_NET_ADMIN); elsewhere they end with the
// processes. What waits in its queue was answered by nobody, and is left for
// Return.
func (d *Direct) Cut(generation uint64) error {
	d.counting.Lock()
	defer d.counting.Unlock()
	some, _ := d.list(func(t *tally) bool { return t.generation == generation })
	if len(some) == 0 {
		return nil
	}
	if err := d.look(); err != nil {
		return fmt.Errorf("cut generation %d: %w", generation, err)
	}
	var failed error // one that cannot be ended is no reason to spare the others
	for _, s := range d.seen.list {
		if !some[0].has(s.tag) || s.inode == 0 {
			continue
		}
		err := destroy(d.diag, &s)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
			break // nor may any other be
		}
		failed = errors.Join(failed, err)
	}
	d.wake()
	if failed != nil {
		return fmt.Errorf("cut generation %d: %w", generation, failed)
	}
	return nil
}

var destroy = (*diag).destroy // a test's own, to fail
