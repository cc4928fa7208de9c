package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// terminal gives the program's side of a terminal, and a function that closes it
// and gives everything that was written to it: pty(7).
func terminal(t *testing.T, width uint16) (*os.File, func() string) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	onDescriptor(person, func(fd int) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: width})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() { // ends when the program's side is closed: reading gives EIO then
		b, err := io.ReadAll(person)
		if err != nil && !errors.Is(err, unix.EIO) {
			t.Error(err)
		}
		person.Close()
		seen <- string(b)
	}()
	return program, func() string {
		program.Close()
		return <-seen
	}
}

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, key+"="); ok {
				return v
			}
		}
		return ""
	}
}

const starting = `{"after_polls": 2,
 "status": [
  {"service":"web","state":"serving","generations":[{"id":4,"release":"v2","state":"starting","notice":"reading \u001b[2J the index, which is a long story that no terminal is wide enough for"}]},
  {"service":"web","state":"serving","generations":[{"id":4,"release":"v2","state":"ready"}]}],
 "result": {"generation":4,"release":"v2","switched":true,"took_ms":5}}`

// On a terminal progress is one line that is redrawn, no wider than the terminal,
// and taken away at the end.
func TestProgressOnATerminal(t *testing.T) {
	dir := t.TempDir()
	f, err := startFake(dir+"/web", starting)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	tty, seen := terminal(t, 60)
	var out strings.Builder
	if code := run([]string{"promote", "v2"}, &out, tty, env("TERM=xterm"), []string{dir}); code != 0 {
		t.Errorf("exit code %d", code)
	}
	got := seen()
	lines := strings.Split(strings.TrimPrefix(got, "\r\x1b[K"), "\r\x1b[K")
	if len(lines) != 3 || lines[2] != "" || strings.ContainsAny(got, "\n") {
		t.Fatalf("got %q", got)
	}
	if !strings.HasPrefix(lines[0], "generation 4 (v2): starting, ") || !strings.Contains(lines[0], `: reading \x1b[2J`) || len(lines[0]) != 59 {
		t.Errorf("got %q, %d wide", lines[0], len(lines[0]))
	}
	if out.String() != "generation 4 (v2) is current: switched to in 5ms\n" {
		t.Errorf("stdout: %q", out.String())
	}

	// What follows begins on a clean line.
	f1, err := startFake(dir+"/web1", starting)
	if err != nil {
		t.Fatal(err)
	}
	defer f1.close()
	tty, seen = terminal(t, 60)
	run([]string{"-s", "web1", "promote", "v2"}, tty, tty, env("TERM=xterm"), []string{dir})
	if got := seen(); !strings.HasSuffix(got, "\r\x1b[Kgeneration 4 (v2) is current: switched to in 5ms\r\n") {
		t.Errorf("got %q", got)
	}

	// TERM=dumb has no lines to redraw.
	f2, err := startFake(dir+"/web2", starting)
	if err != nil {
		t.Fatal(err)
	}
	defer f2.close()
	tty, seen = terminal(t, 60)
	run([]string{"-s", "web2", "promote", "v2"}, io.Discard, tty, env("TERM=dumb"), []string{dir})
	if got := seen(); strings.Contains(got, "\x1b") || got != "generation 4 (v2): starting\r\ngeneration 4 (v2): ready\r\n" {
		t.Errorf("dumb: %q", got)
	}
}

func TestColours(t *testing.T) {
	dir := t.TempDir()
	f, err := startFake(dir+"/web", `{"status":[{"service":"web","state":"serving","generations":[{"id":4,"release":"v2","state":"failed"}]}],"error":{"code":"failed","message":"no"}}`)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, c := range []struct {
		env      string
		coloured bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		tty, seen := terminal(t, 80)
		if code := run([]string{"status"}, tty, tty, env(c.env), []string{dir}); code != 0 {
			t.Errorf("%s: exit code %d", c.env, code)
		}
		if code := run([]string{"retire"}, tty, tty, env(c.env), []string{dir}); code != 1 {
			t.Errorf("%s: exit code %d", c.env, code)
		}
		got := seen()
		for _, want := range []string{"\x1b[32mserving\x1b[m", "\x1b[31;1mfailed\x1b[m", "\x1b[31;1merror:\x1b[m no"} {
			if strings.Contains(got, want) != c.coloured {
				t.Errorf("%s: %q in %q", c.env, want, got)
			}
		}
		if !c.coloured && strings.Contains(got, "\x1b") {
			t.Errorf("%s: %q", c.env, got)
		}
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	st := control.Status{
		Service: "web", State: "held", Current: 12, Previous: 11, HeldUntil: in(20 * time.Second),
		Listeners: []control.Listener{
			{Name: "http", Address: "127.0.0.1:8080", Path: "relay", Reason: "unix listener", Source: "systemd"},
			{Name: "admin", Address: "unix:/run/web.sock", Path: "direct", Source: "proxyd"},
		},
		Generations: []control.Generation{
			{ID: 9, Release: "v0", State: "failed", Since: now.Add(-50 * time.Hour), Reason: "it exited with status 1"},
			{ID: 11, Release: "v1.4.2", State: "draining", InFlight: 4, Accepted: 99120, PID: 17, Since: now.Add(-2 * time.Second), DrainDeadline: in(598 * time.Second)},
			{ID: 12, Release: "größer", State: "current", InFlight: 1200, Accepted: 1034, PID: 4242, Unit: "web@12.service", Since: now.Add(-125 * time.Minute), Notice: "all well"},
		},
	}
	const want = `web: held, new connections wait for 20s more at most, generation 12 (größer) is current, path relay and direct

LISTENER  ADDRESS             PATH                   FROM
http      127.0.0.1:8080      relay (unix listener)  systemd
admin     unix:/run/web.sock  direct                 proxyd

GENERATION  RELEASE  STATE     IN-FLIGHT  ACCEPTED   PID    AGE  NOTE
12          größer   current        1200      1034  4242  2h05m  web@12.service, "all well"
11          v1.4.2   draining          4     99120    17     2s  previous, cut in 9m58s
9           v0       failed            0         0     -   2d2h  it exited with status 1
`
	var got strings.Builder
	writeStatus(&got, st, now, false)
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestServiceLine(t *testing.T) {
	for want, st := range map[string]control.Status{
		"web: starting, no client was served yet":                                 {Service: "web", State: "starting"},
		"web: serving, generation 3 is current":                                   {Service: "web", State: "serving", Current: 3},
		"web: waiting, nothing can serve, clients queue, generation 3 is current": {Service: "web", State: "waiting", Current: 3},
		"web: held, new connections wait until resume":                            {Service: "web", State: "held"},
		`w\x1bb: od\x0ad`: {Service: "w\x1bb", State: "od\nd"},
	} {
		if got := serviceLine(st, time.Now(), false); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 840 * time.Microsecond: "840µs", 12345 * time.Microsecond: "12ms",
		1234 * time.Millisecond: "1.2s", 59900 * time.Millisecond: "59s", 61 * time.Second: "1m01s",
		time.Hour: "1h00m", 49 * time.Hour: "2d1h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	if got := age(1900 * time.Millisecond); got != "1s" {
		t.Errorf("got %q", got)
	}
}

// FuzzClean: whatever came from outside, nothing steers the terminal, and what is
// printable is shown as it is.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"plain", "a\x1b[2J", "\u009b", "\xff\x80", "\r\n\t", "\u202e", "\ufffd", "日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", s, got)
		}
		if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// A stop that waits says for what, and for how long at most.
func TestStopShowsWhenItKills(t *testing.T) {
	dir := t.TempDir()
	for name, verb := range map[string][]string{"web1": {"stop", "2"}, "web2": {"retire"}} {
		f, err := startFake(dir+"/"+name, fmt.Sprintf(`{"after_polls": 1, "status": [{"service":"web","state":"serving","previous":2,
			"generations":[{"id":2,"release":"v1","state":"stopping","reason":"asked for","since":%q,"kill_at":%q}]}],
			"result": {"generation":2,"release":"v1","state":"stopped"}}`,
			time.Now().Format(time.RFC3339), time.Now().Add(time.Hour).Format(time.RFC3339)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.close()
		tty, seen := terminal(t, 80)
		if code := run(append([]string{"-s", name}, verb...), io.Discard, tty, env("TERM=xterm"), []string{dir}); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if got := seen(); !regexp.MustCompile(`generation 2 \(v1\): stopping, \d+s, KILL in (59m\d\ds|1h00m): asked for`).MatchString(got) {
			t.Errorf("%v shows %q", verb, got)
		}
		tty, seen = terminal(t, 120)
		run([]string{"-s", name, "status"}, tty, tty, env("NO_COLOR=1"), []string{dir})
		if got := seen(); !strings.Contains(got, "KILL in ") {
			t.Errorf("status shows %q", got)
		}
	}
}
