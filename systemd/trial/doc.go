// Package trial holds the tests of the whole: the real proxyd and proxyctl, the
// shipped units, a real nginx and a Go server, under a real systemd as PID 1 (see
// package booted). It has no code of its own, and no program imports it.
//
// A test's body runs inside the machine. What a test installs it takes away
// again, by the same command that a user has for it.
package trial
