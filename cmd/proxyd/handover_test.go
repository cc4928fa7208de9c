package main

import (
	"fmt"
	"strings"
	"testing"
)

// Sockets are handed over as systemd does it: without O_NONBLOCK, unless the
// config asks for it, at every start, whatever the last run made of them.
func TestNonBlocking(t *testing.T) {
	for _, want := range []bool{false, true} {
		d := newDaemon(t, setup{command: self(t, "flip"), backend: fmt.Sprintf("non_blocking = %v", want)})
		d.start()
		right, wrong := fmt.Sprintln("non-blocking:", want), fmt.Sprintln("non-blocking:", !want)
		d.await("three runs", func() bool {
			if log := d.log.String(); strings.Contains(log, wrong) {
				t.Fatalf("handed over with O_NONBLOCK %v:\n%s", !want, log)
			}
			return strings.Count(d.log.String(), right) >= 3
		})
	}
}
