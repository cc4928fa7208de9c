package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed8fae2174/proxyd/backend/process"
)

// bin holds the programs that the tests of this package run, built once: proxyd
// and proxyctl as a user has them, and proxyd-faults with its fault points.
var bin string

// TestMain also plays the service behind proxyd: a test that wants one runs this
// very binary (see backend_test.go).
func TestMain(m *testing.M) {
	process.LaunchIfAsked()
	if len(os.Args) > 2 && os.Args[1] == "backend" {
		runTestBackend(os.Args[2], os.Args[3:])
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "proxyd-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run proxyd as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	for _, b := range [][]string{
		{"-o", filepath.Join(bin, "proxyd"), "."},
		{"-o", filepath.Join(bin, "proxyctl"), "../proxyctl"},
		{"-o", filepath.Join(bin, "proxyd-faults"), "-tags", "faults", "."},
	} {
		args := append([]string{"build"}, raceFlag...)
		if out, err := exec.Command("go", append(args, b...)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build %v: %v\n%s", b, err, out)
			return 1
		}
	}
	// For what is started from here: each program, and each generation, would else
	// take a second more to end under the race detector.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := countDescriptors()
	code := m.Run()
	if after := countDescriptors(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d descriptors leaked\n", after-before)
		return 1
	}
	return code
}

// countDescriptors counts what this process has open, the reading itself not.
func countDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// need fails a test for want of a program where CI asks for every test, and
// skips it elsewhere.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
		t.Fatalf("this test needs %s", program)
	}
	t.Skipf("this test needs %s", program)
	return ""
}
