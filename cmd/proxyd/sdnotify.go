package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/systemd"
)

// What proxyd says to systemd of itself, see sd_notify(3): READY=1 once it
// serves, STATUS= as things change, and WATCHDOG=1 while its parts move.

// statusEvery is how often STATUS= is looked at between events, for its counts.
const statusEvery = 5 * time.Second

// margin is how much longer than its own deadlines proxyd asks systemd to wait
// for it. EXTEND_TIMEOUT_USEC= is told while a start or a stop gets on, and no
// longer than those: a first generation that never gets ready must not look like
// a start that takes its time.
const margin = 10 * time.Second

// tellSystemd ends with ctx; serve waits for it. stopping is closed when proxyd
// was asked to end.
func (d *daemon) tellSystemd(ctx context.Context, stopping <-chan struct{}) {
	defer d.background.Done()
	events, err := d.supervisor.Events(ctx, 0)
	if err != nil {
		return // proxyd ends already
	}
	every := watchdogPause(os.Getenv)
	pause := time.NewTicker(every)
	defer pause.Stop()
	c := d.live.Load()
	patience := time.Now().Add(c.Ready.Deadline.D() + margin) // for the first generation
	var said string
	var watch watchdog
	d.tell(systemd.Extend(3 * every))
	for {
		select {
		case _, ok := <-events:
			if !ok { // proxyd has ended, or this did not keep up
				if events, err = d.supervisor.Events(ctx, math.MaxUint64); err != nil {
					return
				}
			}
		case <-pause.C:
			if watch.moves(d.proxy.Progress()) {
				d.tell("WATCHDOG=1")
				if (!d.ready.Load() || stopping == nil) && time.Now().Before(patience) {
					d.tell(systemd.Extend(3 * every))
				}
			}
		case <-stopping:
			stopping = nil
			// The drain, then the stop of what is left, then KILL.
			patience = time.Now().Add(2*d.live.Load().Stop.Timeout.D() + margin)
			d.tell(systemd.Extend(3 * every))
		case <-ctx.Done():
			return
		}
		d.direct.count()
		st, err := d.supervisor.Status(ctx)
		if err != nil {
			return
		}
		// What the operator holds serves, as far as systemd is concerned.
		if (st.State == backend.ServiceServing || st.State == backend.ServiceHeld) && !d.ready.Swap(true) {
			d.tell("READY=1")
		}
		if text := statusLine(st); text != said {
			said = text
			d.tell("STATUS=" + text)
		}
	}
}

func (d *daemon) tell(state string) {
	if err := activation.Tell(state); err != nil {
		d.log.Warn("cannot tell systemd", "state", state, "error", err)
	}
}

// watchdogPause is half of what the watchdog grants, as sd_watchdog_enabled(3)
// advises, or statusEvery where there is none or it grants more.
func watchdogPause(getenv func(string) string) time.Duration {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if pid := getenv("WATCHDOG_PID"); err != nil || usec <= 0 || (pid != "" && pid != strconv.Itoa(os.Getpid())) {
		return statusEvery
	}
	return min(max(time.Duration(usec)*time.Microsecond/2, time.Millisecond), statusEvery)
}

// watchdog remembers how far each event loop was.
type watchdog struct{ turns []uint64 }

// moves says whether every event loop has turned since the last call. That the
// supervisor moves shows in its answer to Status, without which none is given.
func (w *watchdog) moves(turns []uint64) bool {
	before := w.turns
	w.turns = turns
	for i := range before {
		if w.turns[i] == before[i] {
			return false
		}
	}
	return true
}

// statusLine is what `systemctl status` shows.
func statusLine(st backend.Status) string {
	line := string(st.State)
	i := slices.IndexFunc(st.Generations, func(g backend.GenerationStatus) bool { return g.ID == st.Current })
	if i >= 0 {
		g := st.Generations[i]
		line = fmt.Sprintf("%s: generation %s, %d in flight", st.State, generationName(g.ID, g.Release), g.Counts.InFlight)
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
