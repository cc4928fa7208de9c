//go:build faults

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// faultAt kills proxyd with KILL at the step that PROXYD_FAULT names. Only a
// build with -tags faults has it: the tests end proxyd at each step of a
// promote and look at what comes back.
func faultAt(step string) {
	if step == os.Getenv("PROXYD_FAULT") {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}
