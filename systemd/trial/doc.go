// Package trial holds the tests of the whole: the real proxyd and proxyctl, the
// shipped units, a real nginx and a Go server, under a real systemd as PID 1 (see
// package booted). No program imports it.
//
// A test's body runs inside the machine. What a test installs it takes away
// again, by the same command that a user has for it.
//
// The trials under load, with many switches, restarts and kills, are tests of the
// package load, and those of what fails, changes and goes down of the package
// failure, each with a machine of its own: the time of a package's tests is limited
// (go help testflag, -timeout). They are written here, beside the rest.
package trial
