package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// scripted is a command whose behaviour is that of the release: one mode for
// v1, another for v2.
func scripted(t *testing.T, v1, v2 string) []string {
	t.Helper()
	exe := self(t, "")[0]
	script := fmt.Sprintf(`case "$PROXYD_RELEASE" in v2) exec %q backend %s;; *) exec %q backend %s;; esac`, exe, v2, exe, v1)
	return []string{"/bin/sh", "-c", script}
}

func TestAFailedPromoteChangesNothing(t *testing.T) {
	gone := filepath.Join(shortTempDir(t), "gone")
	for name, c := range map[string]struct {
		command func(t *testing.T) []string
		says    []string
	}{
		"never ready":  {func(t *testing.T) []string { return scripted(t, "serve", "never") }, []string{"not ready within 5s", "loading the model"}},
		"dies at once": {func(t *testing.T) []string { return scripted(t, "serve", "die") }, []string{"status 3", "no such table"}},
		"missing command": {func(t *testing.T) []string {
			return []string{"/bin/sh", "-c", `test "$PROXYD_RELEASE" = v1 && exec "$0" backend serve; exec ` + gone, self(t, "")[0]}
		}, []string{"gone", "not found"}},
		"missing program": {func(t *testing.T) []string { return []string{linked(t, "{release}"), "backend", "serve"} }, []string{"no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			// For the one that is never ready; long, so that it has written its line.
			d := newDaemon(t, setup{command: c.command(t), toml: "[ready]\ndeadline = \"5s\"\n[stop]\ntimeout = \"1s\"\n"})
			d.startServing()
			l := startTraffic(t, d.address)
			before := d.status()
			stdout, stderr, code := d.ctl("promote", "v2")
			if code != 5 {
				t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
			}
			for _, s := range c.says {
				if !strings.Contains(stderr, s) {
					t.Errorf("it does not say %q:\n%s", s, stderr)
				}
			}
			d.mustAnswer("v1")
			after := d.status()
			if after.Current != before.Current || after.Previous != before.Previous || after.State != before.State {
				t.Errorf("before: %+v\nafter: %+v", before, after)
			}
			if d.generation(1).PID != before.Generations[0].PID {
				t.Error("generation 1 was started again")
			}
			d.awaitGeneration(2, "failed")
			d.mustKeepToThePath()
			l.check()
		})
	}
}

// linked gives a path with a placeholder, of which only v1 exists.
func linked(t *testing.T, placeholder string) string {
	t.Helper()
	dir := shortTempDir(t)
	if err := os.Symlink(self(t, "")[0], filepath.Join(dir, "v1")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, placeholder)
}

func TestAGenerationThatDiesInProbationIsReverted(t *testing.T) {
	die := filepath.Join(shortTempDir(t), "die")
	d := newDaemon(t, setup{command: scripted(t, "serve", "dieready "+die)})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	d.mustKeepToThePath()
	if err := os.WriteFile(die, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.await("the revert", func() bool { return d.status().Current == 1 })
	d.mustAnswer("v1")
	if h := d.mustCtl("history"); !strings.Contains(h, "reverted") || !strings.Contains(h, "status 9") {
		t.Fatalf("history does not tell of the revert and why:\n%s", h)
	}
	d.awaitGeneration(2, "failed")
	// Nobody who types revert now means the one that has failed.
	if _, stderr, code := d.ctl("revert"); code != 1 || !strings.Contains(stderr, "no previous generation") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	d.mustAnswer("v1")
	d.mustKeepToThePath()
}

func TestACurrentGenerationThatDiesIsStartedAgainAndClientsWait(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	for range 3 {
		pid := d.generation(1).PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.await("the end of the process", func() bool { return d.generation(1).PID != pid })
		d.mustAnswer("v1") // waits, is not refused
		d.mustKeepToThePath()
	}
}

func TestAStubbornGenerationIsKilled(t *testing.T) {
	for _, timeout := range []string{"1s", "0s"} {
		t.Run(timeout, func(t *testing.T) {
			s := setup{command: scripted(t, "stubborn", "serve"), toml: fmt.Sprintf("[stop]\ntimeout = %q\n", timeout)}
			d := newDaemon(t, s)
			if code, out := runProxyd(t, d.dir, "check", "--config", d.config); code != 0 {
				t.Fatalf("check: exit %d\n%s", code, out)
			}
			d.startServing()
			pid := d.generation(1).PID
			d.mustCtl("promote", "v2")
			d.awaitGeneration(1, "standby")
			d.mustCtl("retire")
			d.awaitGeneration(1, "stopped")
			if err := syscall.Kill(pid, 0); err == nil {
				t.Fatal("its process is still there")
			}
			if h := d.mustCtl("history"); strings.Count(h, "killed") != 1 {
				t.Fatalf("history does not tell of one kill:\n%s", h)
			}
		})
	}
}

func TestAnEscapedGrandchildEndsWithItsGeneration(t *testing.T) {
	pidFile := filepath.Join(shortTempDir(t), "pid")
	d := newDaemon(t, setup{command: scripted(t, "escape "+pidFile, "serve")})
	d.startServing()
	var pid int
	await(t, "the grandchild", func() bool {
		b, err := os.ReadFile(pidFile)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err == nil
	})
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the grandchild is not there: %v", err)
	}
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	d.mustCtl("retire")
	d.awaitGeneration(1, "stopped")
	await(t, "the grandchild's end", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	d.mustAnswer("v2")
}

func TestTwoOperationsAtOnceAreRefusedByName(t *testing.T) {
	d := newDaemon(t, setup{command: scripted(t, "serve", "never"), toml: "[stop]\ntimeout = \"1s\"\n"})
	d.startServing()
	first := make(chan int, 1)
	go func() { // ends with the promote that the stop below cancels
		_, _, code := d.ctl("promote", "v2")
		first <- code
	}()
	d.await("generation 2", func() bool { return len(d.status().Generations) == 2 })
	_, stderr, code := d.ctl("promote", "v3")
	if code != 6 || !strings.Contains(stderr, "promote of generation 2 (v2) is in progress") {
		t.Fatalf("a second promote: exit %d\n%s", code, stderr)
	}
	d.mustCtl("stop", "2")
	if code := <-first; code != 6 {
		t.Fatalf("the cancelled promote exits with %d, want 6", code)
	}
	d.mustAnswer("v1")
}
