package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// unprivileged is a user who has nothing but what proxyd runs as it: nobody.
const unprivileged = 65534

// newUnprivileged is newDaemon for a proxyd without rights, as far as the test has
// any to give up, and with the test's own backend as command[0].
func newUnprivileged(t *testing.T, s setup) *daemonUnderTest {
	t.Helper()
	s.path = pathAuto
	if os.Getuid() != 0 {
		return newDaemon(t, s)
	}
	need(t, "setpriv")
	dir := shortTempDir(t)
	s.command[0] = copyOf(t, s.command[0], dir) // its directory is the test user's alone
	d := newDaemon(t, s)
	id := strconv.Itoa(unprivileged)
	d.wrap = []string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups"}
	for _, path := range []string{dir, d.dir, d.config} {
		if err := os.Chown(path, unprivileged, unprivileged); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func copyOf(t *testing.T, program, dir string) (path string) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "backend")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// holders gives the processes that hold the listeners of d.
func (d *daemonUnderTest) holders() (pids []int) {
	d.t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range list {
		argv, _ := os.ReadFile(path) // it may have ended
		if bytes.HasPrefix(argv, []byte("proxyd-holder\x00")) && bytes.Contains(argv, []byte(d.dir+"/")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				d.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitHolder waits until one process holds the listeners that is not but.
func (d *daemonUnderTest) awaitHolder(but int) (pid int) {
	d.t.Helper()
	d.await("one process to hold the listeners", func() bool {
		pids := d.holders()
		if len(pids) != 1 || pids[0] == but {
			return false
		}
		pid = pids[0]
		return true
	})
	return pid
}

// kill9Holder is kill9 with the holder, so that generations alone have the listeners.
func (d *daemonUnderTest) kill9Holder() {
	d.t.Helper()
	holder := d.awaitHolder(0)
	d.kill9()
	kill(d.t, holder)
	d.await("the end of the holder", func() bool { return len(d.holders()) == 0 })
}

// A proxyd that may not trace what it has started comes back all the same: with a
// program that lets nobody, and with any other where Yama forbids it.
func TestKilledWithoutTheRightToTrace(t *testing.T) {
	for _, mode := range []string{"hidden", "serve"} {
		t.Run(mode, func(t *testing.T) {
			d := newUnprivileged(t, setup{command: self(t, mode)})
			d.startServing()
			d.mustBeDirect()
			idle := dialEcho(t, d.address)
			pid := d.generation(1).PID
			for range 2 {
				d.kill9()
				if answer, err := d.get("/"); err != nil || !strings.HasPrefix(answer, "v1 ") {
					t.Fatalf("with no proxyd: %q, %v", answer, err)
				}
				d.start()
				d.awaitState("serving")
				d.mustBeDirect()
				if got := d.generation(1).PID; got != pid {
					t.Fatalf("the current generation was not taken over: process %d, was %d", got, pid)
				}
			}
			d.mustCtl("promote", "v2")
			d.mustAnswer("v2")
			d.mustBeDirect()
			idle.say(t, "hi", "v1 hi")
		})
	}
}

// Where the holder is killed as well, the service comes back beside what cannot be
// taken over: the generation that ran keeps its clients, and another one takes new
// ones.
func TestKilledWithItsHolder(t *testing.T) {
	d := newUnprivileged(t, setup{command: self(t, "hidden")})
	d.startServing()
	idle := dialEcho(t, d.address)
	d.kill9Holder()
	for range 2 { // the second time with what was opened beside the group
		d.start()
		d.awaitState("serving")
		d.mustAnswer("v1")
		idle.say(t, "hi", "v1 hi")
		d.kill9()
	}
	d.start()
	d.awaitState("serving")
	idle.say(t, "hi", "v1 hi")
	idle.conn.Close()
	d.awaitGeneration(1, "stopped")
	d.mustAnswer("v1")
}

// The holder is one process, is replaced when it has ended, and is there as long as
// proxyd or one of its generations is.
func TestWhenTheHolderEnds(t *testing.T) {
	d := newUnprivileged(t, setup{command: self(t, "hidden")})
	d.startServing()
	first := d.awaitHolder(0)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(first, s); err != nil {
			t.Fatal(err)
		}
	}
	d.mustAnswer("v1")
	if got := d.awaitHolder(0); got != first {
		t.Fatalf("held by process %d, was %d", got, first)
	}
	kill(t, first)
	second := d.awaitHolder(first)
	d.kill9()
	d.start()
	d.awaitState("serving")
	d.mustBeDirect() // the second one was told of the generation as well
	if got := d.awaitHolder(0); got != second {
		t.Fatalf("held by process %d, was %d", got, second)
	}
	d.kill9()
	for _, pid := range d.processes() {
		kill(t, pid)
	}
	d.await("the end of the holder", func() bool { return len(d.holders()) == 0 })
	d.startServing()
	d.mustBeDirect()
	d.awaitHolder(second)
	d.stop()
	if left := d.holders(); len(left) > 0 {
		t.Errorf("held by %v after the end of proxyd", left)
	}
	d.cmd = nil
}

// What a generation leaves behind and proxyd may not end accepts on. It gets no
// client of another generation: its sockets are lent to none before it has ended.
func TestWhatCannotBeEndedSharesNoClients(t *testing.T) {
	needRoot(t)
	dir := shortTempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, pidFile := copyOf(t, self(t, "")[0], dir), filepath.Join(dir, "pid")
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	d := newUnprivileged(t, setup{
		command: self(t, "rooted", program, pidFile),
		toml:    "[promote]\nprobation = \"0s\"\n[drain]\nkeep_previous = \"0s\"\nmax_draining = 1\n",
	})
	d.startServing()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	left, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	killed := false
	defer func() {
		if !killed {
			kill(t, left)
		}
	}()
	for i := range 6 {
		release := fmt.Sprintf("v%d", i+2)
		d.mustCtl("promote", release)
		d.mustBeDirect()
		for range 3 {
			d.mustAnswer(release)
		}
		if i > 0 {
			d.awaitGeneration(uint64(i+1), "stopped")
		}
	}
	if g := d.generation(1); string(g.State) != "stopping" || !strings.Contains(g.Reason, "cannot be ended") {
		t.Errorf("generation 1 is %s: %s", g.State, g.Reason)
	}
	kill(t, left)
	killed = true
	d.awaitGeneration(1, "stopped")
	d.mustCtl("promote", "v8")
	d.mustAnswer("v8")
}
