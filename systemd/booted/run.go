package booted

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// Run runs tests, which gives an exit code as testing.M's Run does, and gives the
// exit code of the whole. It takes the shared machine down after them, and fails
// what has left a goroutine or a descriptor, also inside the machine, or has touched
// anything of this machine's. For the latter it executes the test binary once more,
// so nothing may have been made before it is called.
func Run(tests func() int) int {
	was := os.Getenv(apartName)
	if was == "" && !Inside() && missing() == "" {
		fmt.Fprintln(os.Stderr, "run the tests apart:", apart())
		return 1
	}
	layers, err := strconv.Atoi(was)
	if err != nil {
		return runTests(tests) // there is nothing to look at, or another looks
	}
	unix.CloseOnExec(layers)
	_ = os.Setenv(apartName, withMe)
	_ = os.Setenv("GIT_OPTIONAL_LOCKS", "0") // go build asks git, which may note what it found
	before, err := surroundings()
	if err != nil {
		fmt.Fprintln(os.Stderr, "look at this machine:", err)
		return 1
	}
	code := runTests(tests)
	after, err := surroundings()
	if err != nil {
		fmt.Fprintln(os.Stderr, "look at this machine:", err)
		return 1
	}
	found, err := touched(layers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "look at what was touched:", err)
		code = 1
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			found = append(found, line+" (is gone)")
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			found = append(found, line+" (is new)")
		}
	}
	for _, what := range found {
		fmt.Fprintln(os.Stderr, "touched:", what)
		code = 1
	}
	return code
}

// runTests is Run but for what is touched.
func runTests(tests func() int) int {
	descriptors := countDescriptors()
	code := tests()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "close the machine:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left:", err)
		code = 1
	}
	if now := countDescriptors(); now > descriptors {
		fmt.Fprintf(os.Stderr, "descriptors left: %d before, %d after\n", descriptors, now)
		code = 1
	}
	return code
}

// countDescriptors counts this process's descriptors with the two that the
// runtime opens for its poller at the first pipe or socket.
func countDescriptors() int {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	defer w.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}
