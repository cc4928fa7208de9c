package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// bench is one run.
type bench struct {
	rounds    int
	duration  time.Duration // of one measurement, about
	quick     bool
	kinds     []string // of backend: "tcp", "unix"
	workloads []*workload
	peers     []*peer
	progress  io.Writer

	dir      string // gone after the run
	proxyd   string // the built binary
	kind     string // the backend's, at the moment
	launched int
	releases int
}

// results are everything a run found.
type results struct {
	peers   []foundPeer
	entries []*entry
}

// foundPeer is a peer and whether it could be had.
type foundPeer struct {
	peer    *peer
	release string
	missing string // why it takes no part; empty: it does
}

// entry is one workload before one kind of backend.
type entry struct {
	kind     string
	workload *workload
	amount   int64 // requests or bytes a measurement, by calibration
	rows     []*row
}

// row is one peer in an entry.
type row struct {
	peer   *peer
	rounds []measurement
	note   string // why there is nothing, or what is special
}

// run measures everything. What it found before an error or an interrupt is
// given too.
func (b *bench) run(ctx context.Context) (*results, error) {
	res := &results{}
	var present []*peer
	for _, p := range b.peers {
		release, err := p.find(ctx, b)
		f := foundPeer{peer: p, release: release}
		if err != nil {
			f.missing = err.Error()
		} else {
			present = append(present, p)
		}
		res.peers = append(res.peers, f)
	}
	if len(present) == 0 {
		return res, errors.New("measure: none of the peers is there")
	}
	for _, kind := range b.kinds {
		if err := b.runKind(ctx, kind, present, res); err != nil {
			return res, err
		}
	}
	return res, nil
}

// runKind measures before one kind of backend.
func (b *bench) runKind(ctx context.Context, kind string, present []*peer, res *results) error {
	b.kind = kind
	var up []*running
	defer func() {
		for _, r := range up {
			r.end()
		}
	}()
	for i, p := range present {
		b.say("starting %s before a %s backend", p.name, kind)
		r, err := b.launch(ctx, p, kind)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// One peer that does not start is no reason to know nothing of the others.
			j := slices.IndexFunc(res.peers, func(f foundPeer) bool { return f.peer == present[i] })
			res.peers[j].missing = err.Error()
			continue
		}
		up = append(up, r)
	}
	if len(up) == 0 {
		return errors.New("measure: none of the peers started")
	}
	var todo []*entry
	for _, w := range b.workloads {
		e, err := b.prepare(ctx, kind, w, up)
		if err != nil {
			return err
		}
		todo = append(todo, e)
		res.entries = append(res.entries, e)
	}
	for round := range b.rounds {
		for _, e := range todo {
			b.say("round %d of %d, %s backend, %s", round+1, b.rounds, kind, e.workload.name)
			if err := b.runRound(ctx, e, up, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare finds who takes part in a workload and how much there is to do.
func (b *bench) prepare(ctx context.Context, kind string, w *workload, up []*running) (*entry, error) {
	e := &entry{kind: kind, workload: w}
	for _, r := range up {
		e.rows = append(e.rows, &row{peer: r.peer, note: exclusion(w, r.peer)})
	}
	b.say("calibrating %s, %s backend", w.name, kind)
	for _, r := range slices.SortedStableFunc(slices.Values(up), func(x, y *running) int { return calibrateOrder(x) - calibrateOrder(y) }) {
		if exclusion(w, r.peer) != "" {
			continue
		}
		n, err := b.calibrate(ctx, w, r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			e.amount = n
			return e, nil
		}
		b.say("%v", err)
	}
	return e, nil
}

// calibrateOrder: a foreign proxy first, so that changing proxyd does not change
// what is measured; then proxyd; no proxy at all last.
func calibrateOrder(r *running) int {
	switch {
	case r.peer.direct:
		return 2
	case r.peer.ours:
		return 1
	}
	return 0
}

// exclusion says why a peer takes no part in a workload.
func exclusion(w *workload, p *peer) string {
	switch {
	case w.kind == promote && !p.ours:
		return "has no promote"
	case w.kind == memory && p.direct:
		return "is no proxy"
	}
	if most, ok := w.fits(p); !ok && w.kind != memory {
		return fmt.Sprintf("needs %d descriptors a connection: %d connections at most with %d", p.perConn, most, maxDescriptors)
	}
	return ""
}

// runRound measures each peer once; the one that begins changes with the round.
func (b *bench) runRound(ctx context.Context, e *entry, up []*running, round int) error {
	for i := range up {
		at := (i + round) % len(up)
		r, row := up[at], e.rows[at]
		if exclusion(e.workload, r.peer) != "" || e.amount == 0 && e.workload.kind != memory && e.workload.kind != promote {
			continue
		}
		m, err := b.measure(ctx, e.workload, r, e.amount)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			row.note = fmt.Sprintf("round %d: %v", round+1, err)
			b.say("%s: %s: %v", e.workload.name, r.peer.name, err)
			continue
		}
		row.rounds = append(row.rounds, m)
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, format+"\n", args...)
}
