package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// unitFile writes a template unit and has systemd read it.
func unitFile(t *testing.T, name, service string) {
	t.Helper()
	path := "/etc/systemd/system/" + name
	if err := os.WriteFile(path, []byte("[Service]\n"+service), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		run(t, "sh", "-c", "systemctl kill -s KILL '"+strings.Replace(name, "@", "@*", 1)+"' 2>/dev/null; "+
			"systemctl stop '"+strings.Replace(name, "@", "@*", 1)+"'; systemctl reset-failed; rm "+path+"; systemctl daemon-reload")
	})
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func newTestDriver(t *testing.T, unit string) *Driver {
	t.Helper()
	// A poll that never comes: what is seen was told.
	d, err := New(t.Context(), Config{Unit: unit, Poll: time.Hour, Log: hclog.New(&hclog.LoggerOptions{Level: hclog.Info})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func start(t *testing.T, d *Driver, generation uint64, release string) *Unit {
	t.Helper()
	var ids identityList
	u, err := d.Start(t.Context(), generation, release, ids.record)
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != 2 || ids[0] != (Identity{Unit: u.Name()}) || ids[1] != u.Identity() || len(ids[1].Invocation) != 32 {
		t.Errorf("recorded %v for %v", ids, u.Identity())
	}
	return u
}

// await waits for what systemd tells; only a hang fails.
func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("waited in vain for: %s", what)
	}
}

// awaitLine waits for a line of the journal: journald is a process of its own,
// which may take what was written later than systemd takes the writer's end.
func awaitLine(t *testing.T, u *Unit, want string) {
	t.Helper()
	var lines []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if lines = u.LastLines(); strings.Contains(strings.Join(lines, "\n"), want) {
			return
		}
	}
	t.Errorf("no line has %q:\n%s", want, strings.Join(lines, "\n"))
}

func TestAUnitIsStartedAndStopped(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		d := newTestDriver(t, "web@{generation}.service")
		u := start(t, d, 3, "v1")
		await(t, u.Ready(), "active")
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", u.PID())); err != nil || string(comm) != "sleep\n" {
			t.Errorf("process %d is %q, %v", u.PID(), comm, err)
		}
		if !u.Owns(u.PID()) || u.Owns(1) || u.Owns(os.Getpid()) {
			t.Error("it owns others' processes, or not its own")
		}
		if _, err := d.Start(t.Context(), 3, "v1", new(identityList).record); !errors.Is(err, ErrRunning) {
			t.Errorf("it was started twice: %v", err)
		}
		found, err := d.Found(t.Context())
		if err != nil || len(found) != 1 || found[0].Generation != 3 || found[0].Identity != u.Identity() {
			t.Errorf("found %v, %v", found, err)
		}
		if err := u.Stop(); err != nil {
			t.Error(err)
		}
		await(t, u.Done(), "its end")
		if err := u.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		t.Log(u.Exit())
		again := start(t, d, 3, "v1")
		if again.Identity() == u.Identity() {
			t.Error("two runs have one invocation id")
		}
		if err := u.Clear(t.Context()); err != nil { // what came late must not hit it
			t.Error(err)
		}
		if closed(again.Done()) {
			t.Error("the second run was ended by the first one's Clear")
		}
		if err := again.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		await(t, again.Done(), "its end")
		if got := again.Exit(); got != "its process was ended by signal 9 (killed)" {
			t.Error(got)
		}
		if err := again.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if state := run(t, "systemctl", "list-units", "--all", "--no-legend", "web@*"); state != "" {
			t.Errorf("systemd still knows of %s", state)
		}
	})
}

// Every way to fail is told with its reason and with what it wrote.
func TestAUnitThatFails(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "broken.service", "Type=oneshot\nExecStart=false\n")
		unitFile(t, "slow.service", "Type=oneshot\nExecStart=sleep infinity\n")
		for _, c := range []struct{ name, service, reason, line string }{
			{"missing", "Type=exec\nExecStart=/nowhere/web\n",
				"its process exited with status 203: systemd could not execute its command (EXEC)", "Failed to locate executable /nowhere/web"},
			{"missing-simple", "Type=simple\nExecStart=/nowhere/web\n",
				"its process exited with status 203: systemd could not execute its command (EXEC)", "Failed to locate executable /nowhere/web"},
			{"exit", "Type=notify\nExecStart=sh -c 'echo no config >&2; exit 1'\n",
				"its process exited with status 1", "no config"},
			{"timeout", "Type=notify\nTimeoutStartSec=300ms\nExecStart=sh -c 'echo still here; exec sleep infinity'\n",
				"its unit took too long to start or to stop (timeout); its process was ended by signal 15 (terminated)", "still here"},
			{"killed", "Type=notify\nExecStart=sh -c 'echo growing; kill -KILL $$$$'\n",
				"its process was ended by signal 9 (killed)", "growing"},
			{"needs", "Type=exec\nExecStart=sleep infinity\n[Unit]\nRequires=broken.service\nAfter=broken.service\n",
				"a unit that its unit needs did not start (dependency)", "Dependency failed"},
			{"late", "Type=exec\nExecStart=sleep infinity\n[Unit]\nJobTimeoutSec=300ms\nRequires=slow.service\nAfter=slow.service\n",
				"its unit did not begin to start in time (timeout)", "timed out"},
			{"assert", "Type=exec\nExecStart=sleep infinity\n[Unit]\nAssertPathExists=/nowhere\n",
				"an assertion of its unit does not hold (assert)", "Assertion failed"},
			{"pre", "ExecStartPre=sh -c 'echo not yet; exit 3'\nExecStart=sleep infinity\n",
				"its unit failed before its main process ran (exit-code)", "not yet"},
			{"post", "Type=exec\nExecStart=sleep infinity\nExecStartPost=-false\nExecStartPost=sh -c 'echo smoke test failed; exit 3'\n",
				"its unit's ExecStartPost= (sh) failed with status 3", "smoke test failed"},
			{"post-killed", "Type=exec\nExecStart=sleep infinity\nExecStartPost=sh -c 'echo smoke; kill -KILL $$$$'\n",
				"its unit's ExecStartPost= (sh) was ended by signal 9 (killed)", "smoke"},
			// systemd waits for ExecStartPost= although the main process has ended.
			{"while-post", "Type=exec\nExecStart=sh -c 'sleep 0.2; echo no config; exit 4'\nExecStartPost=sleep 1\n",
				"its process exited with status 4", "no config"},
			{"user", "User=nobody-of-that-name\nExecStart=sleep infinity\nType=exec\n",
				"its process exited with status 217: systemd could not set its user (USER)", "Failed to determine user"},
			{"clean", "Type=simple\nExecStart=sh -c 'printf \"\\\\033[31mdone\\\\n\"'\n",
				"its process ended, and systemd saw no error in it", "\uFFFD[31mdone"},
			{"restarted", "Restart=always\nRestartSec=1h\nExecStart=sh -c 'echo again; exit 4'\n",
				"its process exited with status 4", "again"},
		} {
			t.Run(c.name, func(t *testing.T) {
				unitFile(t, "web@.service", c.service)
				d := newTestDriver(t, "web@{release}.service")
				var ids identityList
				u, err := d.Start(t.Context(), 1, c.name, ids.record)
				if err != nil {
					t.Fatal(err)
				}
				await(t, u.Done(), "its end")
				exit := u.Exit()
				// systemd forgets it at once: how much of it is seen is chance.
				if c.name == "clean" && (exit == "its process exited with status 0" ||
					exit == "its unit was skipped, or ran what ended at once without an error") {
					exit = c.reason
				}
				if exit != c.reason {
					t.Errorf("the reason is: %s", exit)
				}
				awaitLine(t, u, c.line)
				if err := u.Clear(t.Context()); err != nil {
					t.Error(err)
				}
				if state := run(t, "systemctl", "list-units", "--all", "--no-legend", "web@*"); state != "" {
					t.Errorf("systemd still knows of %s", state)
				}
			})
		}
	})
}

// The mark is what systemd-oomd leaves at a unit's group before it kills: systemd
// reads it as it reads the kernel's own count of such ends, which is not there
// where the machine's controllers are of version 1.
func TestAUnitThatEndsForWantOfMemory(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		d := newTestDriver(t, "web@{generation}.service")
		u := start(t, d, 1, "v1")
		group := strings.TrimSpace(run(t, "systemctl", "show", "-P", "ControlGroup", u.Name()))
		for _, name := range []string{"user.oomd_ooms", "user.oomd_kill"} {
			if err := syscall.Setxattr("/sys/fs/cgroup"+group, name, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await(t, u.Done(), "its end")
		if got := u.Exit(); got != "it was ended for want of memory (oom-kill); its process was ended by signal 9 (killed)" {
			t.Error(got)
		}
		awaitLine(t, u, "killed 1 process(es) in this unit")
		if err := u.Clear(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What cannot begin is an error, with what systemd had to say.
func TestAUnitThatCannotBegin(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		d := newTestDriver(t, "web@{generation}.service")
		refused := func(want string) {
			t.Helper()
			_, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
			var start *StartError
			if !errors.As(err, &start) || !strings.Contains(err.Error(), want) {
				t.Errorf("the error is: %v", err)
			}
			t.Log(err, start)
		}
		refused("not found")
		unitFile(t, "web@.service", "Type=exec\n")
		refused("bad unit file setting")
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n[Unit]\nRequires=nowhere.service\nAfter=nowhere.service\n")
		refused("not found")

		// Its identity must be on disk before anything runs, else it does not run.
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		full := errors.New("no space left")
		for calls := range 2 {
			n := 0
			_, err := d.Start(t.Context(), 1, "v1", func(Identity) error {
				if n++; n > calls {
					return full
				}
				return nil
			})
			if !errors.Is(err, full) {
				t.Error(err)
			}
			if found, err := d.Found(t.Context()); len(found) != 0 || err != nil {
				t.Errorf("it runs: %v, %v", found, err)
			}
		}

		// A caller that gives up leaves nothing.
		unitFile(t, "web@.service", "Type=exec\nExecStartPre=sleep infinity\nExecStart=sleep infinity\n")
		ctx, cancel := context.WithCancel(t.Context())
		w := d.link.watch("web@1.service")
		defer d.link.unwatch(w)
		go func() { // ends with the unit's first change
			<-w.wake
			cancel()
		}()
		if _, err := d.Start(ctx, 1, "v1", new(identityList).record); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if found, err := d.Found(t.Context()); len(found) != 0 || err != nil {
			t.Errorf("it runs: %v, %v", found, err)
		}

		// A condition that does not hold is no failure to systemd, but no start.
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n[Unit]\nConditionPathExists=/nowhere\n")
		u, err := d.Start(t.Context(), 1, "v1", new(identityList).record)
		if err != nil {
			t.Fatal(err)
		}
		await(t, u.Done(), "its end")
		got := u.Exit()
		if got != "its unit was skipped, for a condition of it does not hold" &&
			got != "its unit was skipped, or ran what ended at once without an error" { // forgotten by then
			t.Error(got)
		}
		awaitLine(t, u, "ConditionPathExists=/nowhere")
	})
}

// A driver that was killed finds its units again, and only those.
func TestUnitsOutliveTheDriver(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		unitFile(t, "other@.service", "Type=exec\nExecStart=sleep infinity\n")
		run(t, "systemctl", "start", "other@1.service", "web@x.service")
		first := newTestDriver(t, "web@{generation}.service")
		kept, lost := start(t, first, 1, "v1"), start(t, first, 2, "v2")
		ids := []Identity{kept.Identity(), lost.Identity()}
		first.Close()
		if closed(kept.Done()) {
			t.Error("a unit seems ended because its driver was closed")
		}
		if err := kept.Clear(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}

		second := newTestDriver(t, "web@{generation}.service")
		if _, err := second.Adopt(t.Context(), Identity{Unit: ids[0].Unit, Invocation: ids[1].Invocation}); !errors.Is(err, ErrGone) {
			t.Errorf("another invocation was adopted: %v", err)
		}
		if _, err := second.Adopt(t.Context(), Identity{Unit: "web@3.service"}); !errors.Is(err, ErrGone) {
			t.Errorf("what never ran was adopted: %v", err)
		}
		for _, name := range []string{"", "web@.service", "web@1.socket", "dbus.service", "web@1 x.service"} {
			if _, err := second.Adopt(t.Context(), Identity{Unit: name}); !errors.Is(err, ErrUnitName) {
				t.Errorf("%q was adopted: %v", name, err)
			}
		}
		u, err := second.Adopt(t.Context(), ids[0])
		if err != nil {
			t.Fatal(err)
		}
		if !closed(u.Ready()) || u.PID() == 0 || u.Identity() != ids[0] {
			t.Errorf("adopted %v with process %d", u.Identity(), u.PID())
		}
		ended, leaving, err := second.Sweep(t.Context(), map[string]bool{ids[0].Unit: true}, time.Hour)
		if err != nil || len(leaving) != 0 || len(ended) != 1 || ended[0] != ids[1].Unit {
			t.Errorf("swept %v and %v, %v", ended, leaving, err)
		}
		run(t, "systemctl", "is-active", "other@1.service", "web@x.service", "web@1.service")
		if err := u.Kill(); err != nil {
			t.Error(err)
		}
		await(t, u.Done(), "its end")
		if err := u.Clear(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What runs is found by what was recorded of it, whatever the template says now.
func TestUnitsOutliveTheirTemplate(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		unitFile(t, "app@.service", "Type=exec\nExecStart=sleep infinity\n")
		first := newTestDriver(t, "web@{generation}.service")
		id := start(t, first, 1, "v1").Identity()
		first.Close()

		second := newTestDriver(t, "app@{generation}.service")
		if err := second.Lives(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := Lives(t.Context(), false, id); err != nil {
			t.Error(err)
		}
		u, err := second.Adopt(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if second.Names(id.Unit) || !second.Names("app@1.service") {
			t.Error("it does not know its template")
		}
		start(t, second, 1, "v1") // beside it, by the template of today
		again, err := second.StartUnit(t.Context(), "web@2.service", new(identityList).record)
		if err != nil || again.Name() != "web@2.service" {
			t.Fatal(again, err)
		}
		if err := second.CheckUnit(t.Context(), "nowhere@1.service"); err == nil {
			t.Error("a unit that is not there is fine")
		}
		run(t, "systemctl", "restart", id.Unit)
		await(t, u.Done(), "its end")
		for _, lives := range []error{second.Lives(t.Context(), id), Lives(t.Context(), false, id)} {
			if !errors.Is(lives, ErrGone) {
				t.Errorf("another run of its unit is taken for it: %v", lives)
			}
		}
	})
}

// systemd executes itself anew, and loses every connection by it.
func TestTheDriverSurvivesAReexec(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		d := newTestDriver(t, "web@{generation}.service")
		u := start(t, d, 1, "v1")
		pid := u.PID()
		run(t, "systemctl", "daemon-reexec")
		run(t, "systemctl", "daemon-reload")
		if found, err := d.Found(t.Context()); err != nil || len(found) != 1 || found[0].Identity != u.Identity() {
			t.Errorf("found %v, %v", found, err)
		}
		if closed(u.Done()) || u.PID() != pid {
			t.Errorf("the unit seems ended: %s", u.Exit())
		}
		// One that ends while nobody is told is seen as well.
		run(t, "sh", "-c", fmt.Sprintf("systemctl daemon-reexec & kill -KILL %d; wait", pid))
		await(t, u.Done(), "its end")
		if got := u.Exit(); got != "its process was ended by signal 9 (killed)" {
			t.Error(got)
		}
		if err := u.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		// A start across it is one start.
		unitFile(t, "slow@.service", "Type=notify\nNotifyAccess=all\nExecStart=sh -c 'mkfifo -m 600 /run/slow; read x </run/slow; systemd-notify --ready; exec sleep infinity'\nExecStopPost=rm -f /run/slow\n")
		slow := newTestDriver(t, "slow@{generation}.service")
		s := start(t, slow, 1, "v1")
		if closed(s.Ready()) {
			t.Error("it is ready before it said so")
		}
		run(t, "systemctl", "daemon-reexec")
		run(t, "sh", "-c", "until [ -p /run/slow ]; do :; done; echo go >/run/slow")
		await(t, s.Ready(), "READY=1")
		if err := s.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if !closed(s.Done()) {
			t.Error("it is cleared and not done")
		}
	})
}
