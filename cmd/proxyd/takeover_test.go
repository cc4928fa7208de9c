package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
)

// What a generation runs is fixed with it: another command in the config is for
// those that come, and whoever runs is taken over, also if it must be started
// again.
func TestAChangedCommandIsForNewGenerations(t *testing.T) {
	old := self(t, "serve")
	d := newDaemon(t, setup{command: old})
	d.startServing()
	first := d.generation(1).PID
	d.kill9()
	d.writeConfig(setup{command: append([]string{"/usr/bin/env", "CHANGED=yes"}, old...)})
	d.start()
	d.awaitState("serving")
	if pid := d.generation(1).PID; pid != first {
		t.Fatalf("generation 1 was process %d and is %d", first, pid)
	}
	changed := func(pid int) bool {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(env, []byte("CHANGED=yes\x00"))
	}
	d.mustKeepToThePath()
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	d.mustKeepToThePath()
	if !changed(d.generation(2).PID) {
		t.Error("the new generation runs the old command")
	}
	d.awaitGeneration(1, "standby")
	d.mustCtl("stop", "1")
	d.awaitGeneration(1, "stopped")
	d.mustCtl("revert", "--to", "1")
	d.mustAnswer("v1")
	if changed(d.generation(1).PID) {
		t.Error("a revert ran another command than what ran")
	}
}

// A child that outlived its proxyd is no unit: the next proxyd, whose generations
// are units, would have nobody to end it, and says so before it does anything.
func TestADriverThatCannotTakeOverIsRefused(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	pid := d.generation(1).PID
	units := filepath.Join(d.dir, "units.toml")
	if err := os.WriteFile(units, fmt.Appendf(nil, "[[listener]]\nname = \"http\"\naddress = %q\n\n[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}.service\"\n", d.address), 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("generation 1 (v1) runs as process %d, and with backend.driver = \"systemd\" nobody looks after it", pid)
	proxyd := func(args ...string) string {
		args = append(args, "--name", "web", "--config", units, "--runtime-dir", filepath.Join(d.dir, "run"), "--state-dir", filepath.Join(d.dir, "state"))
		out, _ := exec.Command(filepath.Join(bin, "proxyd"), args...).CombinedOutput()
		return string(out)
	}
	if out := proxyd("check"); strings.Contains(out, "nobody looks after it") { // it ends with this proxyd
		t.Errorf("check, while proxyd runs:\n%s", out)
	}
	d.kill9()
	for _, verb := range [][]string{{"check"}, {}} {
		if out := proxyd(verb...); !strings.Contains(out, want) {
			t.Errorf("proxyd %v wrote %s, not %q", verb, out, want)
		}
	}
	d.startServing()
	if now := d.generation(1).PID; now != pid {
		t.Errorf("generation 1 was process %d and is %d", pid, now)
	}
}

// What is recorded of runs is told apart, and one that has ended is in nobody's
// way.
func TestWhoTakesOver(t *testing.T) {
	gone := process.Identity{PID: os.Getpid(), StartTime: 1, BootID: "another"}
	for _, c := range []struct {
		driver, scope string
		identity      any
		want          string
	}{
		{"exec", "auto", execIdentity{Process: gone}, ""},
		{"systemd", "auto", execIdentity{Process: gone}, ""},
		{"systemd", "system", map[string]string{"unit": "web@1.service"}, ""}, // by an older proxyd
		{"systemd", "system", map[string]string{"unit": "web@1.service", "scope": "system"}, ""},
		{"systemd", "user", map[string]string{"unit": "web@1.service", "scope": "user"}, ""},
		{"exec", "auto", map[string]string{"unit": "web@1.service", "scope": "user"},
			`generation 1 (v1) runs in unit web@1.service, and with backend.driver = "exec" nobody looks after it`},
		{"systemd", "system", map[string]string{"unit": "web@1.service", "scope": "user"},
			`systemctl --user stop web@1.service`},
	} {
		t.Setenv("XDG_RUNTIME_DIR", "/nowhere") // so that a user's manager cannot be asked
		b, err := json.Marshal(c.identity)
		if err != nil {
			t.Fatal(err)
		}
		config := &Config{Backend: BackendConfig{Driver: c.driver, Scope: c.scope}}
		err = checkTakeOver(t.Context(), config, backend.Durable{Generations: []backend.DurableGeneration{{ID: 1, Release: "v1", Identity: b}}}, false)
		if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
			t.Errorf("driver %s, scope %s, %s: %v", c.driver, c.scope, b, err)
		}
	}
	for plan, want := range map[string]string{
		`{"command":["web"],"sockets":"activation"}`:       "exec",
		`{"sockets":"activation"}`:                         "systemd",
		`{"unit":"web@{generation}.service","sockets":""}`: "systemd",
	} {
		if got := plannedFor(json.RawMessage(plan)); got != want {
			t.Errorf("%s is of driver %s", plan, got)
		}
	}
}
