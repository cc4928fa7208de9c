package activation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childVar makes this binary play a process of its own: "inherit" takes what
// systemd would pass and tells what it saw, "tell" sends a notification.
const childVar = "ACTIVATION_TEST_CHILD"

// quickExit spares children the second that the race detector waits at the end
// of a process.
const quickExit = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	HoldIfAsked()
	switch os.Getenv(childVar) {
	case "inherit":
		tellInherited()
		return
	case "tell":
		if err := Tell(os.Getenv("ACTIVATION_TEST_STATE")); err != nil {
			fmt.Println(err)
		}
		return
	}
	os.Exit(runTests(m))
}

// runTests looks for what the tests left open.
func runTests(m *testing.M) int {
	before := openDescriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if after := openDescriptors(); len(after) > len(before) && code == 0 {
		fmt.Fprintf(os.Stderr, "descriptors leaked: before %v, after %v\n", before, after)
		return 1
	}
	return code
}

// openDescriptors tells what this process has open. The poller that Go's
// runtime opens once, when it first waits for something, is left out.
func openDescriptors() (open []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		what, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(what, "anon_inode:[event") {
			open = append(open, e.Name()+" "+what)
		}
	}
	return open
}

// seen is what a child tells of a Listener.
type seen struct {
	Name, Network, Addr, Source string
	FD                          int
	Nonblock, Cloexec           bool
}

// childAnswer is what a child writes.
type childAnswer struct {
	Listeners []seen
	Stored    []seen
	Error     string
	Left      []string // LISTEN_* variables that are still set
	Again     int      // what a second call gives
}

func tellInherited() {
	listeners, stored, err := Inherited()
	var a childAnswer
	if err != nil {
		a.Error = err.Error()
	}
	look := func(l Listener) seen {
		status, _ := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0)
		flags, _ := unix.FcntlInt(uintptr(l.FD), unix.F_GETFD, 0)
		return seen{l.Name, l.Addr.Network(), l.Addr.String(), l.Source, l.FD,
			status&unix.O_NONBLOCK != 0, flags&unix.FD_CLOEXEC != 0}
	}
	for _, l := range listeners {
		a.Listeners = append(a.Listeners, look(l))
	}
	for _, l := range stored {
		a.Stored = append(a.Stored, look(l))
	}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "LISTEN_") {
			a.Left = append(a.Left, kv)
		}
	}
	again, _, _ := Inherited()
	a.Again = len(again)
	_ = json.NewEncoder(os.Stdout).Encode(a)
}

// inheritIn runs a child that is passed files as descriptors 3 and up. Its
// LISTEN_PID is its own process id if env does not hold another.
func inheritIn(t *testing.T, files []*os.File, env ...string) childAnswer {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `export LISTEN_PID="${LISTEN_PID-$$}"; exec "$0"`, os.Args[0])
	cmd.Env = append(ScrubEnv(os.Environ()), append(env, childVar+"=inherit", quickExit)...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var a childAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return a
}

// rawSocket gives a socket as a file, closed at the end of the test.
func rawSocket(t *testing.T, family, kind, proto int) *os.File {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	return asFile(t, fd)
}

func asFile(t *testing.T, fd int) *os.File {
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
