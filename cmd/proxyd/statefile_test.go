package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// damage is what may befall the state file while proxyd is away.
var damage = map[string]func(good []byte) []byte{
	"empty":     func([]byte) []byte { return nil },
	"truncated": func(good []byte) []byte { return good[:len(good)/2] },
	"zeros":     func(good []byte) []byte { return make([]byte, len(good)) },
	"flipped":   func(good []byte) []byte { return bytes.Replace(good, []byte(`\"v2\"`), []byte(`\"v1\"`), 1)[1:] },
}

// everyCopy lists the copies of the state that exist.
func (d *daemonUnderTest) everyCopy() []string {
	var found []string
	for _, p := range []string{"state/state.json", "state/state.json.last", "run/state.json"} {
		path := filepath.Join(d.dir, p)
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// promoted gives a daemon with generation 2 (v2) current and generation 1
// standing by, killed with KILL.
func promoted(t *testing.T) (d *daemonUnderTest, pids map[uint64]int) {
	t.Helper()
	d = newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	pids = map[uint64]int{1: d.generation(1).PID, 2: d.generation(2).PID}
	d.kill9()
	return d, pids
}

func TestADamagedStateFileForgetsNothing(t *testing.T) {
	for name, harm := range damage {
		t.Run(name, func(t *testing.T) {
			d, pids := promoted(t)
			path := filepath.Join(d.dir, "state/state.json")
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, harm(good), 0o600); err != nil {
				t.Fatal(err)
			}
			d.startServing()
			d.mustAnswer("v2")
			d.mustKeepToThePath()
			for id, pid := range pids {
				if got := d.generation(id).PID; got != pid {
					t.Errorf("generation %d is process %d, was %d", id, got, pid)
				}
			}
			if d.result("revert").Started {
				t.Error("the standby had to be started: it was forgotten")
			}
		})
	}
}

// With every copy gone, what runs is found by the mark in its environment.
func TestALostStateIsRebuiltFromWhatRuns(t *testing.T) {
	for name, harm := range damage {
		t.Run(name, func(t *testing.T) {
			d, pids := promoted(t)
			for _, path := range d.everyCopy() {
				good, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, harm(good), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d.startServing()
			d.mustAnswer("v2")
			d.mustKeepToThePath()
			if got := d.generation(2).PID; got != pids[2] {
				t.Errorf("generation 2 is process %d, was %d", got, pids[2])
			}
			if r := d.result("promote", "v3"); r.Generation <= 2 {
				t.Errorf("the number %d is used again", r.Generation)
			}
		})
	}
}

// A program that binds by itself is found as well, with the port that it has.
func TestALostStateIsRebuiltFromAProgramThatBindsByItself(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "bind", "{address}")})
	d.startServing()
	d.mustCtl("promote", "v2")
	pid := d.generation(2).PID
	d.kill9()
	for _, path := range d.everyCopy() {
		remove(t, path)
	}
	d.startServing()
	d.mustAnswer("v2")
	if got := d.generation(2).PID; got != pid {
		t.Errorf("generation 2 is process %d, was %d", got, pid)
	}
}

// With the runtime directory gone, what can be reached is kept, and what cannot,
// as the path of its socket is gone, is replaced by another run of its release.
func TestALostRuntimeDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		setup setup
		kept  bool
	}{
		"handed over, relay":  {setup{command: self(t, "serve"), path: pathRelay}, false},
		"handed over, direct": {setup{command: self(t, "serve"), path: pathDirect}, true},
		"binds by itself":     {setup{command: self(t, "bind", "{address}")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, c.setup)
			d.startServing()
			pid := d.generation(1).PID
			d.kill9()
			if err := os.RemoveAll(filepath.Join(d.dir, "run")); err != nil {
				t.Fatal(err)
			}
			d.startServing()
			d.mustAnswer("v1")
			if got := d.generation(d.status().Current).PID; (got == pid) != c.kept {
				t.Errorf("the current generation is process %d, was %d", got, pid)
			}
			d.mustCtl("promote", "v2")
			d.mustAnswer("v2")
			d.mustCtl("revert")
			d.mustAnswer("v1")
		})
	}
}

// nginx overwrites its environment with its title: it is found by its output.
func TestALostStateIsRebuiltFromAProgramWithoutAMark(t *testing.T) {
	way := nginxWays[0]
	d := newDaemon(t, setup{command: nginxCommand(t, way.listen, way.find, way.handed)})
	d.startServing()
	d.mustCtl("promote", "v2")
	pid := d.generation(2).PID
	d.kill9()
	for _, path := range d.everyCopy() {
		remove(t, path)
	}
	d.startServing()
	d.mustAnswer("v2")
	if g := d.generation(2); g.PID != pid || g.Release != "v2" {
		t.Errorf("generation 2 (%s) is process %d, was v2 and process %d", g.Release, g.PID, pid)
	}
}

func TestAStateOfANewerSchemaIsRefusedAndNothingIsTouched(t *testing.T) {
	d, pids := promoted(t)
	path := filepath.Join(d.dir, "state/state.json")
	if err := os.WriteFile(path, []byte(`{"schema":99,"revision":1,"sha256":"","state":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.launch()
	<-d.ended
	if code := d.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	for _, s := range []string{path, "newer", "99"} {
		if !strings.Contains(d.log.String(), s) {
			t.Errorf("it does not say %q:\n%s", s, d.log)
		}
	}
	for id, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("generation %d was ended: %v", id, err)
		}
	}
	if err := os.Remove(path); err != nil { // so that the test's end finds its daemon
		t.Fatal(err)
	}
	d.startServing()
	d.mustAnswer("v2")
}

// On a full disk a promote is refused before anything changed, and a revert
// still works.
func TestAFullDisk(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	state := filepath.Join(d.dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=64k"); err != nil {
		if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("this test needs to mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(state, syscall.MNT_DETACH) })
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	filler := filepath.Join(state, "filler")
	_ = exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=4k").Run() // fails when full
	_, stderr, code := d.ctl("promote", "v3")
	if code != 1 || !strings.Contains(stderr, "no space left on device") {
		t.Fatalf("promote on a full disk: exit %d\n%s", code, stderr)
	}
	d.mustAnswer("v2")
	d.mustCtl("revert")
	d.mustAnswer("v1")
	d.awaitGeneration(3, "failed", "stopped")
	d.kill9()
	d.startServing() // the runtime directory remembers
	d.mustAnswer("v1")
	d.mustKeepToThePath()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.mustCtl("promote", "v4")
	d.mustAnswer("v4")
	d.mustKeepToThePath()
}

// After a reboot the state names processes and sockets of which nothing is left.
// That is no failure, and the release that was current is current again.
func TestAfterAReboot(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.kill9()
	for _, pid := range d.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	d.await("every process to end", func() bool { return len(d.processes()) == 0 })
	if err := os.RemoveAll(filepath.Join(d.dir, "run")); err != nil {
		t.Fatal(err)
	}
	d.startServing()
	d.mustAnswer("v2")
	d.mustKeepToThePath()
	if want := "the sockets of the last proxyd have ended"; onThePath() == pathDirect && !strings.Contains(d.log.String(), want) {
		t.Errorf("it does not say %q:\n%s", want, d.log)
	}
	if strings.Contains(d.log.String(), "cannot take over") {
		t.Errorf("what ended with the machine was looked for:\n%s", d.log)
	}
}
