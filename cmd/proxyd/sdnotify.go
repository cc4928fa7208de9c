package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/systemd"
)

// What proxyd says to systemd of itself, see sd_notify(3): READY=1 once it
// serves, STATUS= as things change, and WATCHDOG=1 while its parts move.

// statusEvery is how often STATUS= is looked at between events, for its counts.
const statusEvery = 5 * time.Second

// margin is how much longer than its own deadlines proxyd asks systemd to wait
// for it.
const margin = 10 * time.Second

// teller says to systemd how proxyd is. It belongs to one goroutine.
type teller struct {
	*daemon
	every    time.Duration // from one look to the next
	wish     timeWanted
	watch    watchdog
	stopping bool
	said     string // the last STATUS=
}

// tellSystemd ends with ctx; serve waits for it. stopping is closed when proxyd
// was asked to end.
func (d *daemon) tellSystemd(ctx context.Context, stopping <-chan struct{}) {
	defer d.background.Done()
	t := &teller{
		daemon: d, every: watchdogPause(os.Getenv),
		wish: timeForStart(d.live.Load(), time.Now()), watch: watchdog{turns: d.proxy.Progress()},
	}
	t.tell(systemd.Extend(3 * t.every))
	look := time.NewTimer(0)
	defer look.Stop()
	var events <-chan backend.Entry
	for {
		select {
		case _, ok := <-events:
			if !ok { // proxyd has ended, or this did not keep up
				events = nil
			}
		case <-look.C:
			again, err := t.look(ctx)
			if err != nil {
				return
			}
			look.Reset(again)
		case <-stopping:
			stopping, t.stopping = nil, true
			t.wish.stop(d.live.Load(), time.Now())
			t.tell(systemd.Extend(3 * t.every))
		case <-ctx.Done():
			return
		}
		if !t.wish.booted {
			continue
		}
		if events == nil {
			var err error
			if events, err = d.supervisor.Events(ctx, math.MaxUint64); err != nil {
				return
			}
		}
		if t.show(ctx) != nil {
			return
		}
	}
}

// look feeds the watchdog if everything moves, and asks for time where that is
// wanted. It gives how long it is to the next look; the error says that proxyd
// has ended.
func (t *teller) look(ctx context.Context) (again time.Duration, err error) {
	st, answered, err := t.status(ctx)
	if err != nil {
		return 0, err
	}
	turns := t.proxy.Progress()
	moves := t.watch.moves(answered, turns)
	if answered && !t.wish.booted {
		t.wish = timeForStart(t.live.Load(), time.Now())
		t.wish.booted = true
	}
	if t.wish.wanted(time.Now(), t.ready.Load(), t.stopping, st.Busy) && (moves || !t.wish.booted) {
		t.tell(systemd.Extend(3 * t.every))
	}
	if moves {
		t.tell("WATCHDOG=1")
		return t.every, nil
	}
	t.watch.complain(t.log, time.Now(), t.every, answered, turns)
	return max(t.every/8, time.Millisecond), nil // it may only have been slow
}

// show says what proxyd serves, if that is news.
func (t *teller) show(ctx context.Context) error {
	t.direct.counting.unlessResting()
	st, answered, err := t.status(ctx)
	if err != nil || !answered {
		return err
	}
	// What the operator holds serves, as far as systemd is concerned.
	if (st.State == backend.ServiceServing || st.State == backend.ServiceHeld) && !t.ready.Swap(true) {
		t.tell("READY=1")
	}
	if text := statusLine(st); text != t.said {
		t.said = text
		t.tell("STATUS=" + text)
	}
	return nil
}

// status asks the supervisor for its state, and does not wait for ever where it
// stands still. The error says that it has ended.
func (t *teller) status(ctx context.Context) (st backend.Status, answered bool, err error) {
	limited, cancel := context.WithTimeout(ctx, t.every)
	defer cancel()
	st, err = t.supervisor.Status(limited)
	switch {
	case err == nil:
		return st, true, nil
	case ctx.Err() != nil || errors.Is(err, backend.ErrEnded):
		return st, false, err
	}
	return st, false, nil
}

// timeWanted decides for how long systemd is asked to wait (EXTEND_TIMEOUT_USEC=
// in sd_notify(3)): while a start or a stop gets on, and no longer than those take
// by proxyd's own deadlines. A first generation that never gets ready must not
// look like a start that takes its time. But what the operator asks for while it
// is tried is not cut short: a promote of a better one has a deadline of its own.
type timeWanted struct {
	booted bool // the supervisor has taken over what ran
	until  time.Time
}

// timeForStart is what the begin of a start may take: to take over what ran, and
// then again for the first generation to be ready.
func timeForStart(c *Config, now time.Time) timeWanted {
	return timeWanted{until: now.Add(c.Ready.Deadline.D() + margin)}
}

// stop is for the drain, then the stop of what is left, then KILL.
func (t *timeWanted) stop(c *Config, now time.Time) {
	t.until = now.Add(2*c.Stop.Timeout.D() + margin)
}

func (t *timeWanted) wanted(now time.Time, ready, stopping, busy bool) bool {
	if stopping {
		return now.Before(t.until)
	}
	return !ready && (busy || now.Before(t.until))
}

func (d *daemon) tell(state string) {
	if err := activation.Tell(state); err != nil {
		d.log.Warn("cannot tell systemd", "state", state, "error", err)
	}
}

// statusLine is what `systemctl status` shows: what serves, or why nothing does.
func statusLine(st backend.Status) string {
	line := string(st.State)
	i := slices.IndexFunc(st.Generations, func(g backend.GenerationStatus) bool {
		return g.ID == st.Current || st.Current == 0 && g.State == backend.Starting
	})
	if i >= 0 {
		g := st.Generations[i]
		line = fmt.Sprintf("%s: generation %s, %d in flight", st.State, generationName(g.ID, g.Release), g.Counts.InFlight)
		if st.State != backend.ServiceServing && g.Reason != "" {
			line += "; " + oneLine(g.Reason)
		}
	}
	var draining int
	var left uint64
	for _, g := range st.Generations {
		if g.State == backend.Draining {
			draining++
			left += g.Counts.InFlight
		}
	}
	if draining > 0 {
		line += fmt.Sprintf("; %d draining, %d in flight", draining, left)
	}
	return line
}

// oneLine makes a text fit a line that is told to systemd: a line break would begin
// another assignment there (sd_notify(3)).
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
