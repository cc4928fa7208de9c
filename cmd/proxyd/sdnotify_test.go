package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/backend"
)

// listenAsSystemd gives the path of a notify socket and what is said there.
func listenAsSystemd(t *testing.T) (path string, said chan string) {
	t.Helper()
	path = filepath.Join(shortTempDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	said = make(chan string, 1000)
	go func() { // ends with conn
		defer close(said)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	return path, said
}

// proxyd says READY=1 only when a generation serves, then what it serves, and
// pings the watchdog.
func TestWhatSystemdIsTold(t *testing.T) {
	path, said := listenAsSystemd(t)
	gate := filepath.Join(shortTempDir(t), "go")
	d := newDaemon(t, setup{command: self(t, "serve"),
		toml: "[ready]\ncheck = \"command\"\ncommand = [\"/usr/bin/test\", \"-e\", \"" + gate + "\"]\n",
		env:  []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000"}})
	d.start()
	next := func() string {
		select {
		case s := <-said:
			return s
		case <-time.After(patience):
			t.Fatal("systemd is told nothing more")
			return ""
		}
	}
	var seen []string
	awaitSaid := func(prefix string) string {
		t.Helper()
		for {
			s := next()
			seen = append(seen, s)
			if strings.HasPrefix(s, prefix) {
				return s
			}
		}
	}
	for range 3 { // a start that takes longer than systemd would wait
		awaitSaid("EXTEND_TIMEOUT_USEC=150000")
		awaitSaid("WATCHDOG=1")
	}
	if strings.Contains(strings.Join(seen, "\n"), "READY=1") {
		t.Fatal("READY=1 before the first generation is ready")
	}
	touch(t, gate)
	seen = nil
	for !strings.Contains(strings.Join(seen, "\n"), "STATUS=serving: generation 1 (v1)") {
		seen = append(seen, next())
	}
	if !strings.Contains(strings.Join(seen, "\n"), "READY=1") {
		t.Fatalf("no READY=1 among %q", seen)
	}
	seen = nil
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, usec, ok := strings.Cut(awaitSaid("RELOADING=1"), "\nMONOTONIC_USEC="); !ok || usec == "" || strings.Trim(usec, "0123456789") != "" {
		t.Errorf("the reload began with %q", seen)
	}
	awaitSaid("READY=1")
	awaitSaid("WATCHDOG=1")
	for _, s := range seen {
		if strings.HasPrefix(s, "EXTEND") {
			t.Errorf("it asks for more time though it takes none: %q", seen)
		}
	}
	down := startDrip(t, d.address, 1_000_000, "v1")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitSaid("STOPPING=1")
	for range 3 { // as long as the download goes on
		awaitSaid("EXTEND_TIMEOUT_USEC=150000")
	}
	time.AfterFunc(2*sameWish, func() { _ = d.cmd.Process.Signal(syscall.SIGTERM) }) // enough of it
	<-down.ended
	d.stop()
}

func TestStatusLine(t *testing.T) {
	st := backend.Status{State: backend.ServiceServing, Current: 3, Generations: []backend.GenerationStatus{
		{ID: 2, Release: "v1", State: backend.Draining, Counts: backend.Counts{InFlight: 4}},
		{ID: 3, Release: "v2", State: backend.Current, Counts: backend.Counts{InFlight: 12}},
	}}
	if got, want := statusLine(st), "serving: generation 3 (v2), 12 in flight; 1 draining, 4 in flight"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := statusLine(backend.Status{State: backend.ServiceStarting}); got != "starting" {
		t.Errorf("got %q", got)
	}
	// Where nothing serves it says why, in one line: another would be another word to
	// systemd.
	why := "it said\nREADY=1"
	for want, st := range map[string]backend.Status{
		"waiting: generation 3 (v2), 0 in flight; it said READY=1": {State: backend.ServiceWaiting, Current: 3, Generations: []backend.GenerationStatus{
			{ID: 2, Release: "v1", State: backend.Failed, Reason: "another"}, {ID: 3, Release: "v2", State: backend.Current, Reason: why}}},
		"starting: generation 1 (v1), 0 in flight; it said READY=1": {State: backend.ServiceStarting, Generations: []backend.GenerationStatus{
			{ID: 1, Release: "v1", State: backend.Starting, Reason: why}}},
		"serving: generation 3 (v2), 0 in flight": {State: backend.ServiceServing, Current: 3, Generations: []backend.GenerationStatus{
			{ID: 3, Release: "v2", State: backend.Current, Reason: why}}},
	} {
		if got := statusLine(st); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
