package main

import (
	"slices"
	"testing"
)

func TestRingGivesTheOneThatRestedLongest(t *testing.T) {
	var r ring
	for fd := range 8 {
		r.push(fd)
	}
	for i := range 1000 { // far round the ring
		fd, ok := r.pop()
		if !ok || fd != i%8 {
			t.Fatalf("turn %d: got %d, %v", i, fd, ok)
		}
		r.push(fd)
	}
	if cap(r.fds) > 64 {
		t.Errorf("8 descriptors take room for %d", cap(r.fds))
	}
	r.remove(2)
	r.drop(3) // 0, 1, 3
	var left []int
	for fd, ok := r.pop(); ok; fd, ok = r.pop() {
		left = append(left, fd)
	}
	if want := []int{4, 5, 6, 7}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

func TestScheduleCountsFromWhenARequestWasDue(t *testing.T) {
	s := newSchedule(1000) // one a millisecond
	var got []int64
	for now := int64(2_500_000); ; {
		at := now
		if !s.take(&at) {
			break
		}
		got = append(got, at)
	}
	if want := []int64{0, 1e6, 2e6}; !slices.Equal(got, want) {
		t.Errorf("due at %v, want %v", got, want)
	}
	if newSchedule(0).on {
		t.Error("a schedule without a rate is on")
	}
}

func TestShareGivesAwayEverything(t *testing.T) {
	for _, n := range []int{0, 1, 5, 64, 4999} {
		sum := 0
		for i := range 3 {
			sum += share(n, i, 3)
		}
		if sum != n {
			t.Errorf("%d shared as %d", n, sum)
		}
	}
}
