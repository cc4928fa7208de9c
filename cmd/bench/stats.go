package main

import (
	"math"
	"slices"
)

// percentile is the smallest value that at least the share q of all values does
// not exceed (nearest rank). sorted is in rising order; of nothing it is 0.
func percentile(sorted []int64, q float64) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// sortedTimes are the latencies of samples that were due in [from, to), in rising
// order.
func sortedTimes(samples []sample, from, to int64) []int64 {
	var took []int64
	for _, s := range samples {
		if from <= s.at && s.at < to {
			took = append(took, s.took)
		}
	}
	slices.Sort(took)
	return took
}

// spread is a value over rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// spreadOf takes one value a round. The median of an even number is the mean of
// the middle two. Of nothing it has 0 rounds.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return spread{Median: median, Min: v[0], Max: v[len(v)-1], Rounds: len(v)}
}

// ratio is a/b, and 0 where there is no b.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
