package main

import (
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
)

// watchdogPause is half of what the watchdog grants, as sd_watchdog_enabled(3)
// advises, or statusEvery where there is none or it grants more.
func watchdogPause(getenv func(string) string) time.Duration {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if pid := getenv("WATCHDOG_PID"); err != nil || usec <= 0 || (pid != "" && pid != strconv.Itoa(os.Getpid())) {
		return statusEvery
	}
	return min(max(time.Duration(usec)*time.Microsecond/2, time.Millisecond), statusEvery)
}

// watchdog remembers how far each event loop was when all had moved last.
//
// It is fed by what proxyd does for its clients and by nothing else: the event
// loops and the supervisor. That systemd or its bus gives no answer is no reason
// to end proxyd, which would cut what it relays and mend nothing: the driver
// makes a new connection by itself.
type watchdog struct {
	turns  []uint64
	hungry time.Time // since when not all have moved; zero: they do
	said   bool      // that was logged
}

// moves says whether the supervisor has answered and every event loop has turned
// since it said so last. One that was slow is not asked for more.
func (w *watchdog) moves(answered bool, turns []uint64) bool {
	if !answered || len(w.stuck(turns)) > 0 {
		return false
	}
	w.turns, w.hungry, w.said = turns, time.Time{}, false
	return true
}

// stuck gives the numbers of the loops that have not turned.
func (w *watchdog) stuck(turns []uint64) (loops []int) {
	for i, n := range w.turns {
		if turns[i] == n {
			loops = append(loops, i)
		}
	}
	return loops
}

// complain logs, once, what keeps the watchdog hungry for so long that it is not
// just slow: systemd only says that it was.
func (w *watchdog) complain(log hclog.Logger, now time.Time, patience time.Duration, answered bool, turns []uint64) {
	if w.hungry.IsZero() {
		w.hungry = now
	}
	if w.said || now.Sub(w.hungry) < patience {
		return
	}
	w.said = true
	log.Error("parts of proxyd stand still, and the watchdog is not fed", "supervisor_answers", answered, "stuck_loops", w.stuck(turns))
}
