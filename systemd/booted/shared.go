package booted

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// within is set in the environment of a test binary that runs inside.
	within = "BOOTED_WITHIN"
	// inside is where the test binary is in the machine.
	inside = "/booted/test"
	// bootLimit is far beyond the half second that a boot takes: it only ends
	// what would never end.
	bootLimit = time.Minute
)

var shared struct {
	sync.Mutex
	tried   bool
	machine *Machine
	err     error
}

// Shared gives the machine that the tests of a package share, booted by the
// first that asks. Where none can be booted the test is skipped with the
// reason, or fails if PROXYD_TEST_REQUIRE is "all". If the test fails, what the
// private journal got since is printed. Tests with a machine are not parallel.
//
// TestMain must call Run.
func Shared(t testing.TB) *Machine {
	t.Helper()
	if reason := missing(); reason != "" {
		if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
			t.Fatalf("a private systemd is required but %s", reason)
		}
		t.Skipf("needs a private systemd, but %s", reason)
	}
	shared.Lock()
	defer shared.Unlock()
	if !shared.tried {
		shared.tried = true
		ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
		defer cancel()
		shared.machine, shared.err = New(ctx, Config{})
	}
	if shared.err != nil {
		t.Fatalf("boot private systemd: %v", shared.err)
	}
	m := shared.machine
	since := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
			defer cancel()
			t.Logf("private journal:\n%s", m.Journal(ctx, fmt.Sprintf("--since=@%d", since.Unix())))
		}
	})
	return m
}

// closeShared takes the shared machine down, if there is one.
func closeShared() error {
	shared.Lock()
	defer shared.Unlock()
	m := shared.machine
	shared.machine, shared.tried = nil, false
	if m == nil {
		return nil
	}
	return m.Close()
}

// missing says what is not there to boot a machine with; "" when all is.
var missing = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return "this is not root"
	}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		return "there is no /lib/systemd/systemd (Debian package systemd)"
	}
	for _, tool := range []string{"unshare", "nsenter", "setpriv", "mount", "pivot_root", "systemctl", "journalctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "there is no " + tool + " (Debian packages util-linux, mount, systemd)"
		}
	}
	if out, err := exec.Command("unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "true").CombinedOutput(); err != nil {
		return fmt.Sprintf("this root may not make namespaces (%v: %s)", err, strings.TrimSpace(string(out)))
	}
	return ""
})

// Inside tells whether this process is a test binary within a machine. A
// TestMain may leave out there what is only for the outside.
func Inside() bool { return os.Getenv(within) != "" }

// Within runs body inside the shared machine: outside it starts this test
// binary once more in there, with this one test, and reports what comes of it;
// inside it calls body. Nothing of the outer process, and no file of this
// machine's but what its root file system shows, is there in body. It must be
// the first thing a top-level test does.
func Within(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	WithinAs(t, "", body)
}

// WithinAs is Within as another user ("" is root) of the machine.
func WithinAs(t *testing.T, user string, body func(t *testing.T)) {
	t.Helper()
	if Inside() {
		body(t)
		return
	}
	if strings.Contains(t.Name(), "/") {
		t.Fatal("Within is for top-level tests: a subtest cannot be started alone")
	}
	m := Shared(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if m.holds != exe {
		if err := m.CopyIn(exe, inside); err != nil {
			t.Fatal(err)
		}
		m.holds = exe
	}
	ctx := t.Context()
	args := []string{inside, "-test.v", "-test.run=^" + t.Name() + "$"}
	if deadline, ok := t.Deadline(); ok {
		// Sooner than ours, so that it is the inner one that tells where it hung.
		args = append(args, "-test.timeout="+(time.Until(deadline)*9/10).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if user != "" {
		args = append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", "--"}, args...)
	}
	cmd := m.Command(ctx, args...)
	cmd.Env = append(cmd.Env, within+"=1")
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err != nil:
		t.Errorf("within the machine: %v\n%s", err, text)
	case strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skipf("within the machine:\n%s", text)
	case !strings.Contains(text, "--- PASS: "+t.Name()+" "):
		t.Errorf("within the machine the test did not run:\n%s", text)
	case testing.Verbose():
		t.Logf("within the machine:\n%s", text)
	}
}
