package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tiny is a whole bench against what is always there, with the smallest numbers.
func tiny(t *testing.T) *bench {
	t.Helper()
	b, _, err := parseFlags([]string{"--rounds", "2", "--duration", "10ms", "--peers", "go-copy,none"}, testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	b.dir = t.TempDir()
	for _, w := range b.workloads {
		w.busy = min(w.busy, 8)
		w.open = min(w.open, 40)
		w.idle = min(w.idle, 30)
	}
	return b
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func TestSmoke(t *testing.T) {
	b := tiny(t)
	res, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(b.workloads); len(res.entries) != want {
		t.Fatalf("%d tables, want %d", len(res.entries), want)
	}
	for _, e := range res.entries {
		for _, r := range e.rows {
			name := fmt.Sprintf("%s/%s/%s", e.kind, e.workload.name, r.peer.name)
			if exclusion(e.workload, r.peer) != "" {
				if len(r.rounds) > 0 || r.note == "" {
					t.Errorf("%s: %d rounds, note %q", name, len(r.rounds), r.note)
				}
				continue
			}
			if len(r.rounds) != 2 || r.note != "" {
				t.Errorf("%s: %d rounds, note %q", name, len(r.rounds), r.note)
				continue
			}
			if f := r.failures(); f.total() > 0 {
				t.Errorf("%s: failures %v", name, f)
			}
			m := r.rounds[0]
			if m.Requests == 0 && m.Bytes == 0 || m.Seconds <= 0 || !r.peer.direct && r.peer.name != "direct" && m.ProxyCPU <= 0 {
				t.Errorf("%s: measured nothing: %+v", name, m)
			}
		}
	}
	if left := childrenLeft(); len(left) > 0 {
		t.Errorf("left behind: processes %v", left)
	}
	var out strings.Builder
	if err := b.report(&out, res); err != nil {
		t.Fatal(err)
	}
	if out.Len() < 1000 {
		t.Errorf("the report is short:\n%s", out.String())
	}
}

func childrenLeft() []int { return family(os.Getpid())[1:] }

func TestInterruptedRunEndsItsChildren(t *testing.T) {
	b := tiny(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.progress = cancelAt{cancel, "round 1"}
	b.rounds = 100
	res, err := b.run(ctx)
	if !errors.Is(err, context.Canceled) || res == nil {
		t.Errorf("got %v, %v", res, err)
	}
	if left := childrenLeft(); len(left) > 0 {
		t.Errorf("left behind: processes %v", left)
	}
}

// cancelAt cancels once something that is said begins with text.
type cancelAt struct {
	cancel context.CancelFunc
	text   string
}

func (c cancelAt) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), c.text) {
		c.cancel()
	}
	return len(b), nil
}

// startPair gives a backend and its address.
func startPair(t *testing.T) (string, *child) {
	t.Helper()
	b := tiny(t)
	i := slices.IndexFunc(b.peers, func(p *peer) bool { return p.direct })
	r, err := b.launch(t.Context(), b.peers[i], "tcp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	return r.front, r.children[0]
}

func TestLoadCountsWhatFails(t *testing.T) {
	front, c := startPair(t)
	ld, err := newLoad(front)
	if err != nil {
		t.Fatal(err)
	}
	defer ld.close()
	if err := ld.open(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	c.end()
	o, err := ld.run(t.Context(), job{requests: 20, inFlight: 5})
	if err != nil {
		t.Fatal(err)
	}
	// Every request fails, and with it, where the end of a resting connection is
	// heard first, that.
	if o.requests != 0 || o.failures.total() < 20 {
		t.Errorf("%d answered, failures %v", o.requests, o.failures)
	}
}

func TestPacedLoadKeepsItsRate(t *testing.T) {
	front, _ := startPair(t)
	ld, err := newLoad(front)
	if err != nil {
		t.Fatal(err)
	}
	defer ld.close()
	o, err := ld.run(t.Context(), job{requests: 300, inFlight: len(ld.loops), perConn: 3, rate: 3000})
	if err != nil {
		t.Fatal(err)
	}
	if o.requests != 300 || o.failures.total() > 0 {
		t.Errorf("%d answered, failures %v", o.requests, o.failures)
	}
	// Every latency counts from a time of the schedule, however late the request
	// was sent: each loop has its share of the rate.
	grid := newSchedule(3000 / float64(len(ld.loops))).interval
	for _, s := range o.samples {
		if off := math.Remainder(float64(s.at), grid); math.Abs(off) > 1000 {
			t.Fatalf("a request was due %v ns beside the schedule", off)
		}
	}
}

func TestBulkMovesEveryByte(t *testing.T) {
	front, c := startPair(t)
	for _, kind := range []string{askDown, askUp, askBoth} {
		if _, err := runBulk(t.Context(), front, kind, 3, 5<<20); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	c.end()
	if _, err := runBulk(t.Context(), front, askDown, 3, 5<<20); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with nobody there: %v", err)
	}
}

func TestMissingPeerIsNamed(t *testing.T) {
	b := tiny(t)
	b.workloads, b.rounds = b.workloads[:1], 1
	for _, p := range b.peers {
		if !p.direct {
			p.find = func(context.Context, *bench) (string, error) { return "", errNotInstalled }
		}
	}
	res, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res.peers[0].missing == "" || res.peers[1].missing != "" || len(res.entries[0].rows) != 1 {
		t.Errorf("got %+v", res.peers)
	}
}
