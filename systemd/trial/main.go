package trial

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// Where the programs are in the machine: as a user has them who just built them.
const (
	built = "/opt/proxyd"
	here  = "/booted/backend" // this test binary, which plays the service
)

const programs = "github.com/seed8fae2174/proxyd/cmd/"

// bin holds the programs outside, built once.
var bin string

// Main is TestMain of a package of trials.
func Main(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "backend" {
		runBackend()
		return
	}
	os.Exit(booted.Run(func() int { return runTests(m) }))
}

func runTests(m *testing.M) int {
	if booted.Inside() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "trial-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	return m.Run()
}

// build builds the programs, at the first test that needs them. They are built
// as for a user: the race detector is on in cmd/proxyd's tests.
var build = sync.OnceValue(func() error {
	for name, args := range map[string][]string{
		"proxyd": {programs + "proxyd"}, "proxyctl": {programs + "proxyctl"}, "proxyd-faults": {"-tags", "faults", programs + "proxyd"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(bin, name)}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", name, err, out)
		}
	}
	return nil
})

// machine gives the booted machine with the programs in it.
func machine(t *testing.T) *booted.Machine {
	t.Helper()
	m := booted.Shared(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyIn.Do(func() {
		for from, to := range map[string]string{
			filepath.Join(bin, "proxyd"):        built + "/proxyd",
			filepath.Join(bin, "proxyctl"):      built + "/proxyctl",
			filepath.Join(bin, "proxyd-faults"): built + "/proxyd-faults",
			exe:                                 here,
		} {
			if err := m.CopyIn(from, to); err != nil {
				t.Fatal(err)
			}
		}
	})
	return m
}

var copyIn sync.Once

// within runs body inside the machine.
func within(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if !booted.Inside() {
		machine(t)
	}
	booted.Within(t, body)
}
