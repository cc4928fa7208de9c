package systemd

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Watchdog gives the time within which systemd wants to hear WATCHDOG=1 from
// this process, 0 where it does not (sd_watchdog_enabled(3)). One should say it
// twice as often.
func Watchdog() (time.Duration, error) {
	text := os.Getenv("WATCHDOG_USEC")
	if text == "" {
		return 0, nil
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil // it is meant for the process that started us
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, fmt.Errorf("read WATCHDOG_USEC=%q: not a number of microseconds", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// Extend is the state to tell systemd (sd_notify(3)) to give a start, reload or
// stop that much more time from now on. It must be told again before that is
// over.
func Extend(d time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(d, 0).Microseconds(), 10)
}

// Reloading is the state to tell systemd at the begin of a reload; READY=1 ends
// it. systemd before 253 takes no notice of the time in it.
func Reloading() string {
	var now unix.Timespec
	// It cannot fail for a clock that every kernel has.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}
