package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// pollEvery is how often the status is looked at while something is waited for.
const pollEvery = 200 * time.Millisecond

// change is one request that changes something, as it is waited for.
type change struct {
	verb    string
	timeout time.Duration // 0: none
	// about finds the generation that it is about in a status; nil for none.
	about func(control.Status) *control.Generation
	do    func(context.Context, *control.Client) (control.Result, error)
	// settled, if set, looks at each status after it was done and says whether
	// it is over, and else what is waited for.
	settled func(control.Status, control.Result) (bool, string, string, error)
	show    func(control.Result) // in text, once it was done
}

// apply asks for c, shows its progress and its result. When the time is over, or
// with ^C, only the waiting ends.
func (a *app) apply(ctx context.Context, c change) error {
	client, err := a.client(ctx)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	p := a.progress()
	defer p.clear()
	var far reach
	res, err := c.await(ctx, &far, client, p)
	if err != nil {
		return c.goesOn(err, &far, "the "+c.verb, "it")
	}
	p.clear()
	a.changed = true
	if a.output == "text" {
		c.show(res)
	}
	if c.settled != nil {
		if err := c.settle(ctx, client, p, res); err != nil {
			return c.goesOn(err, &far, fmt.Sprintf("generation %d is current, but the draining of generation %d", res.Generation, res.Previous), "the draining")
		}
		res.Draining = nil
	}
	if a.output == "json" {
		a.json(res)
	}
	return nil
}

// await asks, and looks at the status until the answer is there.
func (c change) await(ctx context.Context, far *reach, client *control.Client, p *progress) (control.Result, error) {
	type answer struct {
		res control.Result
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the answer, or with ctx; await waits for it
		res, err := c.do(far.watched(ctx), client)
		answered <- answer{res, err}
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case a := <-answered:
			return a.res, a.err
		case <-tick.C:
			if st, err := client.Status(ctx); err == nil && c.about != nil {
				c.report(st, p)
			}
		}
	}
}

func (c change) report(st control.Status, p *progress) {
	g := c.about(st)
	if g == nil {
		return
	}
	detail := ", " + age(time.Since(g.Since))
	if g.KillAt != nil {
		detail += ", KILL in " + age(time.Until(*g.KillAt))
	}
	if g.Notice != "" {
		detail += ": " + clean(g.Notice)
	} else if g.Reason != "" {
		detail += ": " + clean(g.Reason)
	}
	p.show(fmt.Sprintf("generation %s: %s", generationName(g.ID, g.Release), clean(g.State)), detail)
}

// settle waits for what follows after the request was done.
func (c change) settle(ctx context.Context, client *control.Client, p *progress, res control.Result) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		over, state, detail, err := c.settled(st, res)
		if over || err != nil {
			return err
		}
		p.show(state, detail)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reach is how far a request came: what proxyd was not asked for does not go on.
type reach struct{ connected, written atomic.Bool }

// watched gives a context whose requests r watches.
func (r *reach) watched(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { r.connected.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				r.written.Store(true)
			}
		},
	})
}

// rest says what becomes of what was asked for, and how to learn more.
func (r *reach) rest(it string) (becomes, hint string) {
	switch {
	case r.written.Load():
		return it + " goes on", "`proxyctl events -f` follows it, `proxyctl status` tells how far it is"
	case r.connected.Load(): // the last bytes may have been on their way
		return "whether proxyd was asked is not known", "`proxyctl history` tells whether it began"
	default:
		return "proxyd was not reached, so nothing was asked for", ""
	}
}

// goesOn says of an error that ended only the waiting what becomes of the rest.
func (c change) goesOn(err error, far *reach, what, it string) error {
	becomes, hint := far.rest(it)
	switch {
	case errors.Is(err, control.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		if c.timeout == 0 {
			return err
		}
		return &control.Error{Code: control.Timeout,
			Message: fmt.Sprintf("%s was not done within %s; %s", what, c.timeout, becomes), Hint: hint}
	case errors.Is(err, context.Canceled):
		return errors.Join(errInterrupted, &control.Error{Code: control.Failed,
			Message: fmt.Sprintf("interrupted while waiting for %s; %s", what, becomes), Hint: hint})
	default:
		return err
	}
}

// inProgress finds the generation that a stage or promote of release works on:
// the newest one that is being started or waits to be switched to.
func inProgress(release string) func(control.Status) *control.Generation {
	return func(st control.Status) *control.Generation {
		var found *control.Generation
		for i := range st.Generations {
			g := &st.Generations[i]
			if (g.State == "starting" || g.State == "ready") && (release == "" || g.Release == release) &&
				(found == nil || g.ID > found.ID) {
				found = g
			}
		}
		return found
	}
}

// numbered finds a generation by its number; 0 means the previous one.
func numbered(id uint64) func(control.Status) *control.Generation {
	return func(st control.Status) *control.Generation {
		if id == 0 {
			return st.Generation(st.Previous)
		}
		return st.Generation(id)
	}
}

// generationName is how a generation is named to a person: 4 (v2).
func generationName(id uint64, release string) string {
	if release == "" {
		return fmt.Sprint(id)
	}
	return fmt.Sprintf("%d (%s)", id, clean(release))
}

// drainingLines tells what still drains.
func (a *app) drainingLines(draining []control.Draining) {
	for _, d := range draining {
		line := fmt.Sprintf("generation %s drains: %d in flight", generationName(d.ID, d.Release), d.InFlight)
		if d.DrainDeadline != nil {
			line += ", what is left is cut in " + age(time.Until(*d.DrainDeadline))
		}
		a.say("%s", line)
	}
}

// took is how long a result took: to the switch where there was one.
func took(res control.Result) string {
	if res.SwitchMicros > 0 {
		return span(time.Duration(res.SwitchMicros) * time.Microsecond)
	}
	return span(time.Duration(res.TookMS) * time.Millisecond)
}
