package process

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sleeper starts a process beside the Driver that only sleeps.
func sleeper(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		script, output, err string
	}{
		{`echo out; echo "$PROXYD_CONTROL" >&2; cat`, "out\n" + w.path("control.sock") + "\n", ""},
		{`echo no; exit 3`, "no\n", "run sh: exit status 3"},
		{`kill -USR1 $$`, "", "run sh: signal 10 (user defined signal 1)"},
		{"mkfifo " + w.path("f") + "; setsid sh -c 'echo away >$0; exec sleep 1000' " + w.path("f") + " & read x <" + w.path("f") + "; echo $x", "away\n", ""}, // it holds the pipe
	} {
		output, err := w.Run(context.Background(), []string{"sh", "-c", c.script}, append(os.Environ(), "PROXYD_GENERATION=1"))
		if c.output != "" && string(output) != c.output {
			t.Errorf("%s: output is %q", c.script, output)
		}
		if err == nil && c.err != "" || err != nil && err.Error() != c.err {
			t.Errorf("%s: error is %v", c.script, err)
		}
	}
	strays, err := w.Sweep(nil) // the one that left its group
	if err != nil || len(strays) != 1 || strays[0].Generation != 1 {
		t.Errorf("swept %+v (%v)", strays, err)
	}
	if _, err := w.Run(context.Background(), []string{"/no/command"}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	eventually(t, "orphans are reaped", func() bool {
		children.reapOrphans()
		all, _ := processes()
		for _, s := range all {
			if s.ppid == os.Getpid() {
				return false
			}
		}
		return true
	})
}

func TestRunKeepsTheBeginning(t *testing.T) {
	w := newWorld(t)
	output, err := w.Run(context.Background(), []string{"sh", "-c", "echo first; head -c 1000000 /dev/zero"}, os.Environ())
	if err != nil || len(output) != maxRunOutput || !strings.HasPrefix(string(output), "first\n") {
		t.Errorf("%d bytes (%v)", len(output), err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := unix.Mkfifo(w.path("pids"), 0o600); err != nil {
		t.Fatal(err)
	}
	pids, err := os.OpenFile(w.path("pids"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pids.Close()
	ended := make(chan error)
	go func() { // ends with Run, which the test waits for
		_, err := w.Run(ctx, []string{"sh", "-c", `trap '' TERM; sleep 1000 & echo "$$ $!" >"$0"; wait`, w.path("pids")}, os.Environ())
		ended <- err
	}()
	buf := make([]byte, 100)
	n, err := pids.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var both []*watched
	for f := range strings.FieldsSeq(string(buf[:n])) {
		pid, _ := strconv.Atoi(f)
		both = append(both, watch(t, pid))
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for _, one := range both {
		one.mustEnd()
	}
}
