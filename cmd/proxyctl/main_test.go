package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain makes the test binary proxyctl itself where a script calls it, and
// fails the package where a goroutine or a descriptor is left over.
func TestMain(m *testing.M) {
	testscript.Main(checked{m}, map[string]func(){
		"proxyctl": func() {
			dirs := filepath.SplitList(os.Getenv("TEST_RUNTIME_DIRS"))
			os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Getenv, dirs))
		},
	})
}

type checked struct{ m *testing.M }

func (c checked) Run() int {
	before := descriptors()
	code := c.m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if after := descriptors(); after != before {
		fmt.Fprintln(os.Stderr, "descriptors before and after:", before, after)
		return 1
	}
	return 0
}

func descriptors() int {
	// The first poll makes the runtime's own epoll descriptors, and the first
	// child a descriptor for its support of pidfds; both stay.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	_ = exec.Command("true").Run()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// TestScripts runs testdata/*.txtar: one behaviour each, with the real proxyctl
// against a fake proxyd. Beside testscript's own commands they have
//
//	fake NAME FILE       serve the scenario in FILE as service NAME
//	exits CODE ARG...    run a command that must end with exactly CODE
//	full ARG...          run a command with nowhere to write to, which must end
//	                     with 1 and the reason
//	polled NAME N        wait until N statuses were asked for
//	asked NAME           print every request for a change so far
//	gone NAME            end a fake
//	dead NAME            leave a socket at which nobody answers
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TEST_RUNTIME_DIRS", env.WorkDir+"/run:"+env.WorkDir+"/user")
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each call lasts a second under the race detector
			fakes := map[string]*fake{}
			env.Values[fakesKey{}] = fakes
			env.Defer(func() {
				for _, f := range fakes {
					f.close()
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fake": func(ts *testscript.TestScript, _ bool, args []string) {
				dir := ts.MkAbs(filepath.Join("run", args[0]))
				if filepath.Dir(args[0]) != "." {
					dir = ts.MkAbs(args[0])
				}
				f, err := startFake(dir, ts.ReadFile(args[1]))
				ts.Check(err)
				fakesOf(ts)[args[0]] = f
			},
			"gone": func(ts *testscript.TestScript, _ bool, args []string) {
				fakesOf(ts)[args[0]].close()
				delete(fakesOf(ts), args[0])
			},
			"dead": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(leaveDead(ts.MkAbs(filepath.Join("run", args[0]))))
			},
			"polled": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				fakesOf(ts)[args[0]].waitForPolls(n)
			},
			"asked": func(ts *testscript.TestScript, _ bool, args []string) {
				fmt.Fprint(ts.Stdout(), fakesOf(ts)[args[0]].requests())
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				exits(ts, args[0], args[1:]...)
			},
			"full": func(ts *testscript.TestScript, _ bool, args []string) {
				exits(ts, "1", append([]string{"sh", "-c", `"$@" >/dev/full`, "sh"}, args...)...)
				if stderr := ts.ReadFile("stderr"); !strings.Contains(stderr, "error: write output: ") || !strings.Contains(stderr, "no space left") {
					ts.Fatalf("it does not say why it failed: %s", stderr)
				}
			},
		},
	})
}

// exits runs a command that must end with code.
func exits(ts *testscript.TestScript, want string, args ...string) {
	err := ts.Exec(args[0], args[1:]...)
	code := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

type fakesKey struct{}

func fakesOf(ts *testscript.TestScript) map[string]*fake {
	return ts.Value(fakesKey{}).(map[string]*fake)
}
