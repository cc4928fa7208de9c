//go:build faults

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// faultAt kills proxyd with KILL at the step that PROXYD_FAULT names, or with a
// number behind it ("identified 2") when that is met so often. Only a build with
// -tags faults has it: the tests end proxyd at each step of a promote and look at
// what comes back.
func faultAt(step string) {
	name, times, counted := strings.Cut(os.Getenv("PROXYD_FAULT"), " ")
	if step != name {
		return
	}
	if n := faultsMet.Add(1); !counted || strconv.FormatInt(n, 10) == times {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

// faultsMet counts how often the step that PROXYD_FAULT names was met.
var faultsMet atomic.Int64
