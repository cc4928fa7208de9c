package main

import (
	"fmt"
	"slices"
	"strings"
)

// bar is one goal that proxyd is held to: a measured number and its limit. Low
// and High are the same number in single rounds.
type bar struct {
	Backend  string  `json:"backend"`
	Goal     string  `json:"goal"`
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"at_least,omitempty"` // else: at most
	Measured float64 `json:"measured"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Verdict  string  `json:"verdict"` // "met", "not met", "not measured"
	Note     string  `json:"note,omitempty"`
}

const (
	met         = "met"
	notMet      = "not met"
	notMeasured = "not measured"
)

// figure is what a bar judges. Its zero value says that nothing was measured.
type figure struct {
	value, low, high float64
	ok               bool
	note             string
}

// plain is the median of values.
func plain(values []float64) figure {
	s := spreadOf(values)
	return figure{value: s.Median, low: s.Min, high: s.Max, ok: s.Rounds > 0}
}

// relative is the ratio of the medians of a and b, its spread that of the ratios
// round by round.
func relative(a, b []float64) figure {
	x, y := spreadOf(a), spreadOf(b)
	if x.Rounds == 0 || y.Rounds == 0 || y.Median == 0 {
		return figure{}
	}
	f := figure{value: x.Median / y.Median, ok: true}
	f.low, f.high = f.value, f.value
	if len(a) == len(b) {
		each := make([]float64, len(a))
		for i := range a {
			each[i] = ratio(a[i], b[i])
		}
		s := spreadOf(each)
		f.low, f.high = s.Min, s.Max
	}
	return f
}

// judge holds a figure against a limit.
func judge(goal string, limit float64, atLeast bool, f figure) bar {
	b := bar{Goal: goal, Limit: limit, AtLeast: atLeast, Measured: f.value, Low: f.low, High: f.high, Note: f.note}
	switch {
	case !f.ok:
		b.Verdict = notMeasured
	case atLeast && f.value >= limit, !atLeast && f.value <= limit:
		b.Verdict = met
	default:
		b.Verdict = notMet
	}
	return b
}

// us is whom the goals are about.
const us = "proxyd"

// values are a peer's in one metric of one workload, one a round.
func (res *results) values(kind, workload, peer, metric string) []float64 {
	e := res.entry(kind, workload)
	if e == nil {
		return nil
	}
	r := e.row(peer)
	if r == nil {
		return nil
	}
	return r.values(e.metric(metric))
}

// against is proxyd relative to the better one of others: the one with the lower
// median, except for throughput, which is only compared to one. One that is
// missing is named.
func (res *results) against(kind, workload, metric string, others ...string) figure {
	var best []float64
	var missing []string
	for _, o := range others {
		v := res.values(kind, workload, o, metric)
		if len(v) == 0 {
			missing = append(missing, o)
			continue
		}
		if best == nil || spreadOf(v).Median < spreadOf(best).Median {
			best = v
		}
	}
	f := relative(res.values(kind, workload, us, metric), best)
	if f.ok && len(missing) > 0 {
		f.note = "without " + strings.Join(missing, ", ")
	}
	return f
}

// bars judges what was measured before one kind of backend.
func (res *results) bars(kind string) []bar {
	better := []string{"haproxy", "nginx"}
	all := []bar{
		judge("keep-64: proxy CPU, to the better of haproxy and nginx", 0.9, false, res.against(kind, "keep-64", "proxy_cpu", better...)),
		judge("keep-64: p99, to the better of haproxy and nginx", 1, false, res.against(kind, "keep-64", "p99", better...)),
		judge("connect: proxy CPU, to the better of haproxy and nginx", 0.9, false, res.against(kind, "connect", "proxy_cpu", better...)),
	}
	for _, w := range []string{"down", "up", "both"} {
		all = append(all,
			judge(w+": proxy CPU per GB, to haproxy", 0.25, false, res.against(kind, w, "proxy_cpu", "haproxy")),
			judge(w+": throughput, to no proxy", 0.8, true, res.against(kind, w, "throughput", "none")))
	}
	all = append(all, judge("idle: resident KB a connection", 0.3, false, plain(res.values(kind, "idle", us, "resident"))))
	for _, w := range []string{"open-5000", "turn-5000"} {
		f := relative(res.values(kind, w, us, "proxy_cpu"), res.values(kind, "keep-64", us, "proxy_cpu"))
		all = append(all, judge(w+": proxy CPU per request, to keep-64", 1.1, false, f))
	}
	all = append(all,
		judge("promote: p99.9 around, to steady", 1.2, false, plain(res.values(kind, "promote", us, "ratio"))),
		judge("promote: failed requests", 0, false, plain(res.values(kind, "promote", us, "failures"))),
		judge("revert: ms to the switch, while the previous runs", 10, false, plain(res.values(kind, "promote", us, "revert"))))
	if kind == "tcp" { // the backend is the same for both
		for _, w := range []string{"keep-64", "connect"} {
			for _, metric := range []string{"machine_cpu", "p99"} {
				f := relative(res.values(kind, w, "direct", metric), res.values(kind, w, "none", metric))
				all = append(all, judge(w+" direct: "+strings.ReplaceAll(metric, "_cpu", " CPU")+", to no proxy", 1.02, false, f))
			}
		}
		all = append(all,
			judge("promote direct: first request after one, ms", 1, false, plain(res.values(kind, "promote", "direct", "first"))),
			judge("promote direct: failed requests", 0, false, plain(res.values(kind, "promote", "direct", "failures"))),
			judge("revert direct: ms to the switch, while the previous runs", 10, false, plain(res.values(kind, "promote", "direct", "revert"))))
	}
	for i := range all {
		all[i].Backend = kind
	}
	return all
}

// failed are the goals that were measured and not met.
func failed(bars []bar) int {
	return len(slices.DeleteFunc(slices.Clone(bars), func(b bar) bool { return b.Verdict != notMet }))
}

func (b bar) limit() string {
	sign := "<="
	if b.AtLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %.4g", sign, b.Limit)
}

func (b bar) measured() string {
	switch {
	case b.Verdict == notMeasured:
		return "-"
	case b.Low == b.High:
		return number(b.Measured)
	}
	return fmt.Sprintf("%s (%s..%s)", number(b.Measured), number(b.Low), number(b.High))
}

func (b bar) verdict() string {
	if b.Note == "" {
		return b.Verdict
	}
	return b.Verdict + " (" + b.Note + ")"
}
