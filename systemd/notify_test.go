package systemd

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		{"", "", 0, false},
		{"30000000", own, 30 * time.Second, false},
		{"30000000", "", 30 * time.Second, false},
		{"30000000", "1", 0, false},
		{"0", own, 0, true},
		{"-5", own, 0, true},
		{"soon", own, 0, true},
		{"9223372036854775807", own, 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got, err := Watchdog(); got != c.want || (err != nil) != c.fails {
			t.Errorf("%+v gives %v, %v", c, got, err)
		}
	}
}

func TestStatesToTell(t *testing.T) {
	if got := Extend(1500 * time.Millisecond); got != "EXTEND_TIMEOUT_USEC=1500000" {
		t.Error(got)
	}
	if got := Extend(-1); got != "EXTEND_TIMEOUT_USEC=0" {
		t.Error(got)
	}
	first, second := Reloading(), Reloading()
	number := func(s string) int64 {
		text, ok := strings.CutPrefix(s, "RELOADING=1\nMONOTONIC_USEC=")
		n, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil {
			t.Error(s)
		}
		return n
	}
	if a, b := number(first), number(second); a <= 0 || b < a {
		t.Errorf("%q before %q", first, second)
	}
}
