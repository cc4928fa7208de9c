package main

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ring holds the descriptors of idle connections: the one that rested longest is
// taken first, so that all of them are used in turn.
type ring struct {
	fds  []int
	from int // the first one in use
}

func (r *ring) push(fd int) {
	if r.from > 0 && len(r.fds) == cap(r.fds) {
		r.fds = r.fds[:copy(r.fds, r.fds[r.from:])]
		r.from = 0
	}
	r.fds = append(r.fds, fd)
}

func (r *ring) pop() (int, bool) {
	if r.from == len(r.fds) {
		r.fds, r.from = r.fds[:0], 0
		return 0, false
	}
	r.from++
	return r.fds[r.from-1], true
}

// drop forgets the n that rested longest.
func (r *ring) drop(n int) { r.from = min(r.from+n, len(r.fds)) }

func (r *ring) remove(fd int) {
	if i := slices.Index(r.fds[r.from:], fd); i >= 0 {
		r.fds = slices.Delete(r.fds, r.from+i, r.from+i+1)
	}
}

// schedule says when the requests of an open loop are due: at equal distances
// from the run's start.
type schedule struct {
	on       bool
	interval float64 // nanoseconds
	at       float64 // the next one
}

// newSchedule makes one of rate requests a second; with 0 it is off.
func newSchedule(rate float64) schedule {
	if rate <= 0 {
		return schedule{}
	}
	return schedule{on: true, interval: float64(time.Second) / rate}
}

// take tells whether a request is due at the time *now, and replaces that by when
// it was due.
func (s *schedule) take(now *int64) bool {
	due := int64(s.at)
	if due > *now {
		return false
	}
	*now = due
	s.at += s.interval
	return true
}

// arm makes timer fire when the next request is due.
func (s *schedule) arm(timer int, now int64) {
	wait := unix.NsecToTimespec(max(1, int64(s.at)-now))
	_ = unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Value: wait}, nil)
}
