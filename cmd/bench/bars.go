package main

import (
	"fmt"
	"math"
)

// bar is one goal that proxyd is held to: a measured number and its limit.
type bar struct {
	Backend  string  `json:"backend"`
	Goal     string  `json:"goal"`
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"at_least,omitempty"` // else: at most
	Measured float64 `json:"measured"`
	Verdict  string  `json:"verdict"` // "met", "not met", "not measured"
}

// judge makes a bar; ok tells whether there is a measurement at all.
func judge(kind, goal string, measured float64, ok bool, limit float64, atLeast bool) bar {
	b := bar{Backend: kind, Goal: goal, Limit: limit, AtLeast: atLeast, Measured: measured}
	switch {
	case !ok || math.IsNaN(measured):
		b.Verdict, b.Measured = "not measured", 0
	case atLeast && measured >= limit, !atLeast && measured <= limit:
		b.Verdict = "met"
	default:
		b.Verdict = "not met"
	}
	return b
}

// bars judges what was measured before one kind of backend.
func (res *results) bars(kind string) []bar {
	const us = "proxyd"
	// against gives proxyd's median relative to the better one of others.
	against := func(workload, metric string, others ...string) (float64, bool) {
		e := res.entry(kind, workload)
		if e == nil {
			return 0, false
		}
		mine, ok := e.median(us, metric)
		if !ok {
			return 0, false
		}
		best := 0.0
		for _, o := range others {
			v, ok := e.median(o, metric)
			if !ok {
				continue
			}
			if more := e.metric(metric).more; best == 0 || more && v > best || !more && v < best {
				best = v
			}
		}
		return ratio(mine, best), best > 0
	}
	var all []bar
	atMost := func(goal string, limit float64) func(float64, bool) {
		return func(v float64, ok bool) { all = append(all, judge(kind, goal, v, ok, limit, false)) }
	}
	atLeast := func(goal string, limit float64) func(float64, bool) {
		return func(v float64, ok bool) { all = append(all, judge(kind, goal, v, ok, limit, true)) }
	}
	atMost("keep-64: proxy CPU, to the better of haproxy and nginx", 0.9)(against("keep-64", "proxy_cpu", "haproxy", "nginx"))
	atMost("keep-64: p99, to the better of haproxy and nginx", 1)(against("keep-64", "p99", "haproxy", "nginx"))
	atMost("connect: proxy CPU, to the better of haproxy and nginx", 0.9)(against("connect", "proxy_cpu", "haproxy", "nginx"))
	for _, w := range []string{"down", "up", "both"} {
		atMost(w+": proxy CPU per GB, to haproxy", 0.25)(against(w, "proxy_cpu", "haproxy"))
		atLeast(w+": throughput, to no proxy", 0.8)(against(w, "throughput", "none"))
	}
	if e := res.entry(kind, "idle"); e != nil {
		v, ok := e.median(us, "resident")
		atMost("idle: resident KB a connection", 0.3)(v, ok)
	} else {
		atMost("idle: resident KB a connection", 0.3)(0, false)
	}
	for _, w := range []string{"open-5000", "turn-5000"} {
		few, many := res.entry(kind, "keep-64"), res.entry(kind, w)
		goal := w + ": proxy CPU per request, to keep-64"
		if few == nil || many == nil {
			atMost(goal, 1.1)(0, false)
			continue
		}
		a, ok1 := many.median(us, "proxy_cpu")
		b, ok2 := few.median(us, "proxy_cpu")
		atMost(goal, 1.1)(ratio(a, b), ok1 && ok2)
	}
	e := res.entry(kind, "promote")
	var r *row
	if e != nil {
		r = e.row(us)
	}
	if r == nil || len(r.rounds) == 0 {
		atMost("promote: p99.9 around, to steady", 1.2)(0, false)
		atMost("promote: failures", 0)(0, false)
		return all
	}
	v, ok := e.median(us, "ratio")
	atMost("promote: p99.9 around, to steady", 1.2)(v, ok)
	atMost("promote: failures", 0)(float64(r.failures().total()), true)
	return all
}

func (b bar) limit() string {
	sign := "<="
	if b.AtLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %.4g", sign, b.Limit)
}
