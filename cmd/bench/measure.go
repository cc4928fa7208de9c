package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

// A measurement never gets more than so much to do, whatever the calibration
// found.
const (
	maxRequests = 1_000_000
	maxBytes    = 64 << 30
)

// measure runs one workload once against a running peer. n is the requests or
// bytes to do.
func (b *bench) measure(ctx context.Context, w *workload, r *running, n int64) (measurement, error) {
	runtime.GC() // now, so that it does not fall into the measurement
	settle(slices.Concat(r.pids, r.backends))
	limit := 20*b.duration + 30*time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch w.kind {
	case bulk:
		return b.measureBulk(ctx, w, r, n)
	case memory:
		return b.measureMemory(ctx, w, r)
	case promote:
		return b.measurePromotes(ctx, w, r)
	default:
		return b.measureRequests(ctx, w, r, n)
	}
}

func (b *bench) measureRequests(ctx context.Context, w *workload, r *running, n int64) (m measurement, err error) {
	ld, err := newLoad(r.front)
	if err != nil {
		return m, err
	}
	defer ld.close()
	if w.perConn == 0 {
		if err := ld.open(ctx, w.connections()); err != nil {
			return m, err
		}
		ld.setAside(w.idle)
	}
	j := job{requests: n, inFlight: w.busy, perConn: w.perConn}
	warm := j
	warm.requests = max(n/20, int64(w.busy))
	if _, err := ld.run(ctx, warm); err != nil {
		return m, err
	}
	count, err := startMeter(r.pids, r.backends)
	if err != nil {
		return m, err
	}
	o, err := ld.run(ctx, j)
	if err != nil {
		return m, err
	}
	s, err := count.read()
	if err != nil {
		return m, err
	}
	m.spend(o.took, s)
	m.Requests, m.Failures, m.Connections = o.requests, o.failures, w.connections()
	took := sortedTimes(o.samples, math.MinInt64, math.MaxInt64)
	m.P50, m.P99 = float64(percentile(took, 0.5))/1e3, float64(percentile(took, 0.99))/1e3
	return m, nil
}

func (m *measurement) spend(took time.Duration, s spent) {
	m.Seconds, m.ProxyCPU = took.Seconds(), s.proxy.Seconds()
	m.MachineCPU, m.ForeignCPU = s.machine.Seconds(), s.foreign.Seconds()
}

func (b *bench) measureBulk(ctx context.Context, w *workload, r *running, n int64) (m measurement, err error) {
	each := n / int64(w.busy)
	if w.ask == askBoth {
		each /= 2
	}
	each = max(blockSize, each/blockSize*blockSize)
	if _, err := runBulk(ctx, r.front, w.ask, w.busy, max(blockSize, each/20/blockSize*blockSize)); err != nil {
		return m, err
	}
	count, err := startMeter(r.pids, r.backends)
	if err != nil {
		return m, err
	}
	took, err := runBulk(ctx, r.front, w.ask, w.busy, each)
	if err != nil {
		return m, err
	}
	s, err := count.read()
	if err != nil {
		return m, err
	}
	m.spend(took, s)
	m.Bytes, m.Connections = each*int64(w.busy), w.busy
	if w.ask == askBoth {
		m.Bytes *= 2
	}
	return m, nil
}

// measureMemory starts a proxy of its own: one that has served before keeps
// memory that the new connections would then not be charged for.
func (b *bench) measureMemory(ctx context.Context, w *workload, used *running) (m measurement, err error) {
	r, err := b.launch(ctx, used.peer, b.kind)
	if err != nil {
		return m, err
	}
	defer r.end()
	if used.peer.direct {
		return m, nil
	}
	connections := w.connections()
	if most, ok := w.fits(r.peer); !ok {
		connections = most / 100 * 100
	}
	if err := warmUp(ctx, r.front); err != nil {
		return m, err
	}
	settle(r.pids)
	before, err := resident(r.pids)
	if err != nil {
		return m, err
	}
	ld, err := newLoad(r.front)
	if err != nil {
		return m, err
	}
	defer ld.close()
	count, err := startMeter(r.pids, r.backends)
	if err != nil {
		return m, err
	}
	if err := ld.open(ctx, connections); err != nil {
		return m, err
	}
	settle(r.pids)
	s, err := count.read()
	if err != nil {
		return m, err
	}
	after, err := resident(r.pids)
	if err != nil {
		return m, err
	}
	m.spend(time.Since(count.at), s)
	m.Requests, m.Connections, m.Before, m.Resident = int64(connections), connections, before, after
	return m, nil
}

// warmUp makes a proxy touch what it needs for any connection at all.
func warmUp(ctx context.Context, front string) error {
	ld, err := newLoad(front)
	if err != nil {
		return err
	}
	defer ld.close()
	if err := ld.open(ctx, busyOnes); err != nil {
		return err
	}
	_, err = ld.run(ctx, job{requests: 50 * busyOnes, inFlight: busyOnes})
	return err
}

// calibrate finds how many requests or bytes fill the measurement's duration on r.
func (b *bench) calibrate(ctx context.Context, w *workload, r *running) (int64, error) {
	if w.kind == memory || w.kind == promote {
		return 0, nil
	}
	try, most := int64(2000), int64(maxRequests)
	if w.kind == bulk {
		try, most = 64<<20, maxBytes
	}
	for {
		m, err := b.measure(ctx, w, r, try)
		if err != nil {
			return 0, fmt.Errorf("calibrate %s on %s: %w", w.name, r.peer.name, err)
		}
		// A tenth of the duration is long enough to go by.
		if m.Seconds >= b.duration.Seconds()/10 || try >= most {
			return min(most, max(1, int64(float64(try)*b.duration.Seconds()/m.Seconds))), nil
		}
		try = min(most, try*max(2, min(20, int64(b.duration.Seconds()/5/m.Seconds))))
	}
}
