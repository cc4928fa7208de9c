package main

import "golang.org/x/sys/unix"

// perGeneration is how many descriptors a generation takes beside its sockets,
// while it is started: its output with both ends, pidfd, notify socket and the
// two pipes to the launch stub, with room for its readiness check.
const perGeneration = 8

// divideDescriptors says how much of a descriptor limit is kept from clients: for
// at most control connections of the control socket, and reserve for those and
// for all else, so that a promote works while clients take what they can. Where
// there are few, half of them are kept.
func divideDescriptors(limit, listeners, maxDraining int) (control, reserve int) {
	if maxDraining == 0 { // no bound: what most have
		maxDraining = defaults().Drain.MaxDraining
	}
	control = max(4, min(64, limit/16))
	generations := maxDraining + 4 // current, standby, one that starts, one that stops
	reserve = control + generations*(perGeneration+listeners) + 16
	return control, min(reserve, limit/2)
}

// descriptorLimit gives the limit, which the runtime has raised as far as it can.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // what systemd and login give
	}
	return int(min(l.Cur, 1<<30))
}
