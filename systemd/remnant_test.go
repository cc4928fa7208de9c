package systemd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// groupOf gives the control group's own list of a unit's processes: what systemd
// calls ended may have some.
func groupOf(t *testing.T, unit string) []string {
	t.Helper()
	var all []string
	files, err := filepath.Glob("/sys/fs/cgroup/system.slice/*/" + unit + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, "/sys/fs/cgroup/system.slice/"+unit+"/cgroup.procs") {
		text, err := os.ReadFile(f)
		if err == nil {
			all = append(all, strings.Fields(string(text))...)
		}
	}
	return all
}

// A unit whose rules spare processes is over when these are: whatever of it ran on
// would accept from the sockets of whoever comes after it.
func TestWhatOutlastsAUnitIsEndedWithIt(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		const leaves = "Type=exec\nExecStartPre=sh -c 'rm -f /run/leaves; mkfifo -m 600 /run/leaves'\n" +
			"ExecStart=sh -c '(trap \"\" %s; echo >/run/leaves; while :; do sleep 1000; done) & wait'\n"
		for _, c := range []struct{ name, heedsNot, rules string }{
			{"none", "HUP", "KillMode=none\n"},
			{"process", "HUP", "KillMode=process\n"},
			{"main first", "HUP", "KillMode=mixed\nSendSIGKILL=no\nTimeoutStopSec=1ms\n"},
			{"heeds no signal", "TERM", "KillMode=process\n"},
		} {
			t.Run(c.name, func(t *testing.T) {
				unitFile(t, "web@.service", fmt.Sprintf(leaves, c.heedsNot)+c.rules)
				t.Cleanup(func() { run(t, "rm", "-f", "/run/leaves") })
				d := newTestDriver(t, "web@{generation}.service")
				u := start(t, d, 1, "v1")
				run(t, "cat", "/run/leaves") // the child runs
				run(t, "systemctl", "kill", "--kill-who=main", "-s", "KILL", u.Name())
				await(t, u.Done(), "its end")
				for systemdSays := ""; systemdSays != "failed\n"; {
					systemdSays = run(t, "systemctl", "show", "-P", "ActiveState", u.Name())
				}
				if left := groupOf(t, u.Name()); len(left) == 0 {
					t.Fatal("nothing is left of it, so this tests nothing")
				}
				again := newTestDriver(t, "web@{generation}.service")
				if found, err := again.Found(t.Context()); err != nil || len(found) != 1 {
					t.Errorf("found %v, %v", found, err)
				}
				if _, err := again.Start(t.Context(), 1, "v1", new(identityList).record); !errors.Is(err, ErrRunning) {
					t.Errorf("another was started beside what is left: %v", err)
				}
				if err := u.Clear(t.Context()); err != nil {
					t.Error(err)
				}
				if left := groupOf(t, u.Name()); len(left) > 0 {
					t.Errorf("processes %v are left", left)
				}
				if err := again.Lives(t.Context(), u.Identity()); !errors.Is(err, ErrGone) {
					t.Errorf("it is said to live: %v", err)
				}
			})
		}
	})
}

// What does not end by KILL is waited for, is told of, and is found by the next
// driver, which has nothing but what was recorded.
func TestWhatDoesNotEndKeepsAUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, first := fakeDriver(t)
		u, err := first.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		f.set("ActiveState", "failed", "SubState", "failed", "MainPID", uint32(0), "Result", "signal",
			"ExecMainCode", int32(2), "ExecMainStatus", int32(9), "ExecMainExitTimestampMonotonic", uint64(9))
		f.leave(7, 8)
		<-u.Done()
		cleared := make(chan error)
		go func() { cleared <- u.Clear(t.Context()) }() // ends with the driver
		time.Sleep(time.Hour)
		synctest.Wait()
		const want = "its main process has ended, and 2 other processes of its unit have not (7, 8)"
		if got := u.Left(); got != want {
			t.Errorf("what is left is told as %q", got)
		}
		f.mu.Lock()
		if len(f.kills) < 2 || f.kills[0] != "all 15" || slices.Contains(f.kills[1:], "all 15") {
			t.Errorf("it was sent %v", f.kills)
		}
		f.mu.Unlock()
		first.Close()
		if err := <-cleared; err == nil {
			t.Error("it is said to have ended")
		}

		second, err := newDriver(t.Context(), Config{Unit: "web@{generation}.service"}, f.dial)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if _, leaving, err := second.Sweep(t.Context(), nil, time.Minute); err != nil || !slices.Equal(leaving, []string{"web@1.service"}) {
			t.Errorf("a sweep has %v leaving, %v", leaving, err)
		}
		again, err := second.Adopt(t.Context(), u.Identity())
		if err != nil {
			t.Fatal(err)
		}
		<-again.Done()
		if got := again.Exit(); got != "its process was ended by signal 9 (killed)" {
			t.Error(got)
		}
		go func() { cleared <- again.Clear(t.Context()) }() // ends when nothing is left
		time.Sleep(time.Minute)
		f.leave()
		if err := <-cleared; err != nil || again.Left() != "" {
			t.Errorf("%v, left %q", err, again.Left())
		}
		if err := second.Lives(t.Context(), u.Identity()); !errors.Is(err, ErrGone) {
			t.Errorf("it is said to live: %v", err)
		}
	})
}
