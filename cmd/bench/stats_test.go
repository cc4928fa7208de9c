package main

import "testing"

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	for _, c := range []struct {
		name   string
		sorted []int64
		q      float64
		want   int64
	}{
		{"nothing", nil, 0.5, 0},
		{"one", []int64{7}, 0.999, 7},
		{"median of two is the first", []int64{1, 2}, 0.5, 1},
		{"median", hundred, 0.5, 50},
		{"p99", hundred, 0.99, 99},
		{"p99.9 of a hundred is the last", hundred, 0.999, 100},
		{"p0 is the first", hundred, 0, 1},
	} {
		if got := percentile(c.sorted, c.q); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3, 1}},
		{[]float64{9, 1, 4}, spread{4, 1, 9, 3}},
		{[]float64{9, 1, 4, 6}, spread{5, 1, 9, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: got %+v, want %+v", c.values, got, c.want)
		}
	}
}

func TestSortedTimesTakesAWindow(t *testing.T) {
	got := sortedTimes([]sample{{at: 30, took: 1}, {at: 10, took: 9}, {at: 20, took: 5}, {at: 9, took: 3}}, 10, 30)
	if len(got) != 2 || got[0] != 5 || got[1] != 9 {
		t.Errorf("got %v, want [5 9]", got)
	}
}

func TestWindowsLieAroundThePromote(t *testing.T) {
	const ms = int64(1e6)
	var samples []sample
	add := func(fromMS, toMS int64, tookMS int64) {
		for at := fromMS; at < toMS; at++ {
			samples = append(samples, sample{at: at * ms, took: tookMS * ms})
		}
	}
	add(0, 1000, 7)     // the second before the steady one
	add(1000, 2000, 2)  // steady
	add(2000, 3000, 5)  // around the promote at 2.5 s
	add(3000, 4000, 90) // after it
	p := windows(samples, []int64{2500 * ms})
	if p.Earlier != 7000 || p.Steady != 2000 || p.Around != 5000 || p.AroundMax != 5000 || p.Count != 1 {
		t.Errorf("got %+v", *p)
	}
}
