package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a run that found the given proxy CPU and throughput in each round of
// keep-64 and down.
func made(t *testing.T, cpu map[string][]float64) (*bench, *results) {
	t.Helper()
	b, _, err := parseFlags([]string{"-backend", "tcp", "-workloads", "keep-64,down"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	res := &results{}
	for _, w := range b.workloads {
		e := &entry{kind: "tcp", workload: w, amount: 1000}
		for _, p := range b.peers {
			r := &row{peer: p}
			for _, c := range cpu[p.name] {
				r.rounds = append(r.rounds, measurement{Seconds: 1, Requests: 1e6, Bytes: 1e9, P50: c, P99: 10 * c, ProxyCPU: c, MachineCPU: 2 * c, Connections: w.connections()})
			}
			e.rows = append(e.rows, r)
		}
		res.entries = append(res.entries, e)
	}
	for _, p := range b.peers {
		f := foundPeer{peer: p, release: "1.2"}
		if cpu[p.name] == nil {
			f.missing = p.name + ": not installed"
		}
		res.peers = append(res.peers, f)
	}
	return b, res
}

func theBar(t *testing.T, res *results, goal string) bar {
	t.Helper()
	bars := res.bars("tcp")
	i := slices.IndexFunc(bars, func(b bar) bool { return strings.HasPrefix(b.Goal, goal) })
	if i < 0 {
		t.Fatalf("no goal begins with %q", goal)
	}
	return bars[i]
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestBarsCompareToTheBetterOne(t *testing.T) {
	_, res := made(t, map[string][]float64{
		"proxyd": {8, 9, 10}, "haproxy": {20, 21, 22}, "nginx": {10, 10, 20}, "none": {0, 0, 0},
		"go-copy": {1, 1, 1}, // better than all, and not in the goal
	})
	b := theBar(t, res, "keep-64: proxy CPU")
	if !near(b.Measured, 0.9) || !near(b.Low, 0.5) || !near(b.High, 0.9) || b.Verdict != met || b.Note != "" {
		t.Errorf("got %+v", b)
	}
	if b := theBar(t, res, "down: proxy CPU"); !near(b.Measured, 9.0/21) || b.Verdict != notMet {
		t.Errorf("got %+v", b)
	}
	if b := theBar(t, res, "down: throughput"); !near(b.Measured, 1) || b.Verdict != met {
		t.Errorf("got %+v", b)
	}
	if b := theBar(t, res, "connect: proxy CPU"); b.Verdict != notMeasured {
		t.Errorf("got %+v", b)
	}
}

func TestBarsNameWhatIsMissing(t *testing.T) {
	_, res := made(t, map[string][]float64{"proxyd": {8}, "haproxy": {20}})
	if b := theBar(t, res, "keep-64: proxy CPU"); b.Verdict != met || b.Note != "without nginx" {
		t.Errorf("got %+v", b)
	}
	_, res = made(t, map[string][]float64{"haproxy": {20}})
	for _, b := range res.bars("tcp") {
		if b.Verdict != notMeasured {
			t.Errorf("without proxyd: %+v", b)
		}
	}
}

func TestBestPeerLeavesOutProxydAndNoProxy(t *testing.T) {
	_, res := made(t, map[string][]float64{"proxyd": {1}, "haproxy": {4}, "nginx": {3}, "none": {0.5}})
	e := res.entry("tcp", "keep-64")
	if got := e.best(e.metric("p50")); got != 3 {
		t.Errorf("best p50 is %v, want 3", got)
	}
	e.row("nginx").rounds[0].Seconds = 2
	if got := e.best(e.metric("throughput")); got != 1e6 {
		t.Errorf("best throughput is %v, want the higher one", got)
	}
}

func TestReportSaysWhatAPersonNeeds(t *testing.T) {
	b, res := made(t, map[string][]float64{"proxyd": {8, 9, 10}, "haproxy": {20, 20, 20}, "none": {1, 1, 1}})
	e := res.entry("tcp", "keep-64")
	e.row("haproxy").rounds[1].Failures = failures{"connect: refused": 3}
	e.row("none").note = "round 2: nothing was answered"
	var out bytes.Buffer
	if err := b.report(&out, res); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"nginx          MISSING: nginx: not installed",
		"Keep-alive, 64 clients, tcp backend (keep-64)",
		"1000 requests a measurement",
		"9.00 -11..+11% x0.45",
		"haproxy: 3 FAILURES: 3 connect: refused",
		"none: round 2: nothing was answered",
		"met (without nginx)",
		"not measured",
		"1 not met",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}

func TestReportJSON(t *testing.T) {
	b, res := made(t, map[string][]float64{"proxyd": {8, 9, 10}, "haproxy": {20, 20, 20}})
	var out bytes.Buffer
	if err := b.reportJSON(&out, res); err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(doc.Results, func(r resultJSON) bool { return r.Peer == "proxyd" && r.Workload == "keep-64" })
	if i < 0 || doc.Schema != 1 || len(doc.Results[i].Rounds) != 3 {
		t.Fatalf("got %s", out.String())
	}
	m := doc.Results[i].Metrics["proxy_cpu"]
	if !near(m.Median, 9) || !near(m.Min, 8) || !near(m.Max, 10) || !near(m.ToBest, 0.45) || m.Unit == "" {
		t.Errorf("proxy_cpu is %+v", m)
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.123: "0.12", 12.34: "12.3", 1234.5: "1234"} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	b, output, err := parseFlags([]string{"--quick", "--rounds", "2", "--peers", "none, haproxy", "-o", "json"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if b.rounds != 2 || b.duration != 300*time.Millisecond || output != "json" || names(b.peers, peerName) != "haproxy, none" || len(b.kinds) != 2 {
		t.Errorf("got %+v, %s", b, output)
	}
	for _, bad := range [][]string{
		{"--rounds", "0"}, {"--rounds", "101"}, {"--duration", "1ms"}, {"--duration", "2m"}, {"--backend", "udp"},
		{"-o", "xml"}, {"--peers", "envoy"}, {"--workloads", "keep"}, {"more"},
	} {
		if _, _, err := parseFlags(bad, io.Discard); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
