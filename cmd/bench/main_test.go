package main

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be started again in the bench's other roles, and
// looks for goroutines and descriptors that were left behind.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "backend" || os.Args[1] == "relay") {
		if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	starter() // stays for good, by design
	before := descriptors()
	code := m.Run()
	err := goleak.Find(goleak.IgnoreAnyFunction("github.com/seed8fae2174/proxyd/cmd/bench.runStarter"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		code = 1
	}
	if after := descriptors(); after > before+runtimeDescriptors {
		fmt.Fprintf(os.Stderr, "descriptors left behind: %d before, %d after\n", before, after)
		code = 1
	}
	os.Exit(code)
}

// runtimeDescriptors is what Go's own poller keeps from its first use on: an
// epoll and an eventfd.
const runtimeDescriptors = 2

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}
