package proxy

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstLook = 2 * time.Millisecond
	lastLook  = time.Second
	// lookShare bounds the CPU that counting takes: a look that took 1 ms is
	// followed by at least this many ms without one.
	lookShare = 25
)

// Drained gives a channel that is closed when new connections do not go to the
// generation and it has none left, and when it is returned.
func (d *Direct) Drained(generation uint64) <-chan struct{} {
	done := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		close(done)
		return done
	}
	t.waiters = append(t.waiters, done)
	d.wake()
	return done
}

// wake makes watch look soon.
func (d *Direct) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// watch looks at the generations that drain and that somebody waits for: often
// while something changes, ever less often while nothing does. It ends with
// Close, which waits for it.
func (d *Direct) watch() {
	defer close(d.ended)
	pause := firstLook
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.quit:
			return
		case <-d.kick:
			pause = firstLook
		case <-timer.C:
		}
		changed, cost, wanted := d.lookAtDraining()
		if !wanted {
			timer.Stop()
			continue
		}
		if changed {
			pause = firstLook
		} else {
			pause = min(2*pause, lastLook)
		}
		timer.Reset(max(pause, lookShare*cost))
	}
}

// lookAtDraining counts what drains and tells who waits for it.
func (d *Direct) lookAtDraining() (changed bool, cost time.Duration, wanted bool) {
	d.counting.Lock()
	defer d.counting.Unlock()
	all, left := d.list()
	var some []*tally
	d.mu.Lock()
	for _, t := range all {
		if left[t] != 0 && len(t.waiters) > 0 {
			some = append(some, t)
		}
	}
	d.mu.Unlock()
	if len(some) == 0 {
		return false, 0, false
	}
	changed, err := d.count(some, left, all)
	if err != nil {
		d.log.Warn("cannot count connections, trying again", "error", err)
		return false, d.seen.cost, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range some {
		if t.left != left[t] || !t.drained() {
			wanted = true
			continue
		}
		for _, w := range t.waiters {
			close(w)
		}
		t.waiters = nil
		changed = true
	}
	return changed, d.seen.cost, wanted
}

// Cut resets the connections that a generation's processes have, where that is
// permitted (SOCK_DESTROY, CAP_NET_ADMIN); elsewhere they end with the
// processes. What waits in its queue was answered by nobody, and is left for
// Return.
func (d *Direct) Cut(generation uint64) error {
	d.counting.Lock()
	defer d.counting.Unlock()
	all, left := d.list()
	for _, t := range all {
		if t.generation != generation {
			continue
		}
		if err := d.look(); err != nil {
			return fmt.Errorf("cut generation %d: %w", generation, err)
		}
		mine, err := holders{}.of(t)
		for _, s := range d.seen.list {
			if err != nil {
				break
			}
			if s.inode != 0 && mine[s.inode] {
				err = d.diag.destroy(&s)
			}
		}
		t.at = time.Time{}
		_ = left
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("cut generation %d: %w", generation, err)
		}
	}
	d.wake()
	return nil
}
