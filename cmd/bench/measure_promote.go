package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed8fae2174/proxyd/backend/control"
)

const (
	promoteRate     = 4000 // requests a second
	promotesARound  = 3
	promotesInQuick = 1
)

// measurePromotes keeps an open loop of load on proxyd while it promotes.
func (b *bench) measurePromotes(ctx context.Context, w *workload, r *running) (m measurement, err error) {
	if r.control == nil {
		return m, errors.New("measure promotes: no control socket")
	}
	count := promotesARound
	if b.quick {
		count = promotesInQuick
	}
	ld, err := newLoad(r.front)
	if err != nil {
		return m, err
	}
	defer ld.close()
	defer spareProcessors()()
	limit := time.Duration(count+2) * 15 * time.Second
	j := job{requests: int64(limit.Seconds() * promoteRate), inFlight: w.busy, perConn: w.perConn, rate: promoteRate}
	start := time.Now()
	ended := make(chan loadEnd, 1)
	go runLoad(ctx, ld, j, ended)
	made, perr := promoteAll(ctx, r, b, count, start)
	ld.finish()
	end := <-ended
	if err := errors.Join(perr, end.err); err != nil {
		return m, err
	}
	m.Seconds, m.Requests, m.Failures = end.took.Seconds(), end.requests, end.failures
	m.Promotes = windows(end.samples, made.at)
	m.Promotes.SwitchMS, m.Promotes.FirstMS = made.promote.Seconds()*1e3, made.first.Seconds()*1e3
	m.Promotes.BeforeMS = made.before.Seconds() * 1e3
	slices.Sort(made.reverts)
	m.Promotes.RevertMS = float64(percentile(made.reverts, 0.5)) / 1e6
	m.Promotes.RevertMaxMS = float64(percentile(made.reverts, 1)) / 1e6
	r.backends, err = currentPID(ctx, r.control)
	return m, err
}

type loadEnd struct {
	outcome
	err error
}

// runLoad ends with the load's run; measurePromotes waits.
func runLoad(ctx context.Context, ld *load, j job, ended chan<- loadEnd) {
	o, err := ld.run(ctx, j)
	ended <- loadEnd{o, err}
}

// switches is what a round's promotes and reverts took.
type switches struct {
	at      []int64       // of the promotes: the middle of each call, in nanoseconds since the start
	promote time.Duration // the slowest call, disk included
	first   time.Duration // the slowest first connection after one, with its request and the answer
	before  time.Duration // the same, of one just before each promote
	reverts []int64       // nanoseconds from the request to the switch, as proxyd measured it
}

// How long after a promote it is reverted: outside of the second around it, and
// while the previous generation still runs.
const revertAfter = 600 * time.Millisecond

// promoteAll promotes and reverts count times. Staging comes three seconds before
// a promote: starting the service's own process is not the cost of a switch.
func promoteAll(ctx context.Context, r *running, b *bench, count int, start time.Time) (made switches, err error) {
	for range count {
		b.releases++
		staged, err := r.control.Stage(ctx, control.StageRequest{Release: fmt.Sprintf("r%d", b.releases)})
		if err != nil {
			return made, fmt.Errorf("stage: %w", err)
		}
		if err := pause(ctx, 3*time.Second); err != nil {
			return made, err
		}
		if err := visited(r.front, &made.before); err != nil {
			return made, fmt.Errorf("ask before promote: %w", err)
		}
		first, err := newVisitor(r.front)
		if err != nil {
			return made, err
		}
		began := time.Since(start)
		if _, err := r.control.Promote(ctx, control.PromoteRequest{Generation: staged.Generation}); err != nil {
			first.leave()
			return made, fmt.Errorf("promote: %w", err)
		}
		took := time.Since(start) - began
		made.promote = max(made.promote, took)
		answered, err := first.visit()
		if err != nil {
			return made, fmt.Errorf("ask after promote: %w", err)
		}
		made.first = max(made.first, answered)
		made.at = append(made.at, int64(began+took/2))
		if err := pause(ctx, revertAfter); err != nil {
			return made, err
		}
		switched, err := revertOnce(ctx, r.control)
		if err != nil {
			return made, err
		}
		made.reverts = append(made.reverts, int64(switched))
		if err := pause(ctx, time.Second-revertAfter); err != nil {
			return made, err
		}
	}
	return made, nil
}

// visited keeps the slowest of one more visit and those before.
func visited(address string, slowest *time.Duration) error {
	v, err := newVisitor(address)
	if err != nil {
		return err
	}
	took, err := v.visit()
	*slowest = max(*slowest, took)
	return err
}

// revertOnce goes back to a generation that still runs and gives the time from
// the request to the switch.
func revertOnce(ctx context.Context, c *control.Client) (time.Duration, error) {
	res, err := c.Revert(ctx, control.RevertRequest{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("revert: %w", err)
	case !res.Switched || res.Started || res.SwitchMicros <= 0:
		return 0, fmt.Errorf("revert: not one to a running generation: %+v", res)
	}
	return time.Duration(res.SwitchMicros) * time.Microsecond, nil
}

// pause waits; it is the load's time that passes, not something awaited.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// windows pools, over the promotes at the given times, the second around each,
// the second before that and the one before that.
func windows(samples []sample, at []int64) *promoted {
	const second = int64(time.Second)
	var around, steady, earlier []int64
	for _, t := range at {
		from := t - second/2
		around = append(around, sortedTimes(samples, from, from+second)...)
		steady = append(steady, sortedTimes(samples, from-second, from)...)
		earlier = append(earlier, sortedTimes(samples, from-2*second, from-second)...)
	}
	p := &promoted{Count: len(at)}
	for _, s := range []struct {
		took []int64
		to   *float64
	}{{around, &p.Around}, {steady, &p.Steady}, {earlier, &p.Earlier}} {
		slices.Sort(s.took)
		*s.to = float64(percentile(s.took, 0.999)) / 1e3
	}
	if len(around) > 0 {
		p.AroundMax = float64(around[len(around)-1]) / 1e3
	}
	return p
}
