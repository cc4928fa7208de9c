package booted_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// again gives this test binary to be run with one test, under the eyes of nobody:
// what the tests of this run touch is looked at by this run.
func again(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// Whatever a test does to this machine fails it, or rather its package: here a test
// does all that, where it does no harm.
func TestATouchIsSeen(t *testing.T) {
	touches := map[string]func() error{
		"/etc/touched ":                              func() error { return os.WriteFile("/etc/touched", nil, 0o644) },
		"/etc/passwd -r--------":                     func() error { return os.Chmod("/etc/passwd", 0o400) },
		"/etc/group ":                                func() error { return os.Chtimes("/etc/group", time.Unix(1, 0), time.Unix(1, 0)) },
		"/run/touched ":                              func() error { return os.Mkdir("/run/touched", 0o755) },
		"/tmp/touched ":                              func() error { return syscall.Mkfifo("/tmp/touched", 0o600) },
		"/var/lib/dpkg/status is gone":               func() error { return os.Remove("/var/lib/dpkg/status") },
		"/usr/lib/systemd/system-generators is gone": func() error { return os.RemoveAll("/usr/lib/systemd/system-generators") },
		"/opt/touched Lrwxrwxrwx":                    func() error { return os.Symlink("/etc/elsewhere", "/opt/touched") },
		"/proc/self/mountinfo: ":                     func() error { return syscall.Mount("x", "/srv", "tmpfs", 0, "") },
	}
	if os.Getenv("BOOTED_TEST_TOUCH") != "" {
		for what, touch := range touches {
			if err := touch(); err != nil {
				fmt.Println(what, "not done:", err)
			}
		}
		return
	}
	booted.Shared(t)
	for _, apart := range []bool{false, true} {
		cmd := again(t, "TestATouchIsSeen", "BOOTED_TEST_TOUCH=1")
		cwd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		if !apart { // it does nothing, as a run that keeps clear
			cmd.Args[1] = "-test.run=^$"
		}
		// In the namespace that this run came from: layers over layers are limited.
		cmd.Args = append([]string{"nsenter", "-t", strconv.Itoa(os.Getppid()), "--mount", "--wd=" + cwd, "--", "env", "-u", "BOOTED_APART"}, cmd.Args...)
		if cmd.Path, err = exec.LookPath("nsenter"); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if failed := err != nil; failed != apart {
			t.Errorf("it ended with %v\n%s", err, out)
		}
		for what := range touches {
			if seen := strings.Contains(string(out), "touched: "+what); seen != apart {
				t.Errorf("seen %v: %s\n%s", seen, what, out)
			}
		}
	}
	for _, name := range []string{"/etc/touched", "/run/touched", "/opt/touched"} {
		if _, err := os.Lstat(filepath.Join("/proc", strconv.Itoa(os.Getppid()), "root", name)); err == nil {
			t.Errorf("%s is there outside", name)
		}
	}
}

// Of a test that failed the journal is printed.
func TestTheJournalOfAFailedTestIsPrinted(t *testing.T) {
	if os.Getenv("BOOTED_TEST_FAIL") != "" {
		m := booted.Shared(t)
		m.Run(t, "systemd-run", "--wait", "--quiet", "sh", "-c", "echo said by a unit in there; exit 0")
		t.Error("as it is told to")
		return
	}
	booted.Shared(t)
	out, err := again(t, "TestTheJournalOfAFailedTestIsPrinted", "BOOTED_TEST_FAIL=1").CombinedOutput()
	_, journal, printed := strings.Cut(string(out), "private journal:\n")
	if err == nil || !printed || !strings.Contains(journal, "said by a unit in there") {
		t.Errorf("it ended with %v\n%s", err, out)
	}
}

// Where no machine can be booted the tests say so, and are skipped; where all is
// required they fail.
func TestItIsSaidWhereNoMachineCanBe(t *testing.T) {
	booted.Shared(t) // as root
	for require, want := range map[string]string{
		"":    "needs a private systemd, but this is not root",
		"all": "a private systemd is required but this is not root",
	} {
		cmd := again(t, "TestTheDiskOutlivesABoot", "PROXYD_TEST_REQUIRE="+require)
		exe, err := os.Open(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer exe.Close()
		// Whoever it is may not look into the directory that go test made.
		cmd.ExtraFiles = []*os.File{exe}
		cmd.Path, cmd.Dir = "/proc/self/fd/3", "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		skipped := strings.Contains(string(out), "--- SKIP: TestTheDiskOutlivesABoot")
		if (err != nil) != (require == "all") || skipped != (require == "") || !strings.Contains(string(out), want) {
			t.Errorf("with %q required it ended with %v\n%s", require, err, out)
		}
	}
}
