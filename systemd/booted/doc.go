// Package booted is test support: it boots a private, real systemd as PID 1 of
// new mount, pid, net, uts, ipc and cgroup namespaces, in about half a second,
// for tests that need to know what systemd does rather than what a fake thinks
// it does. No program of the project imports it.
//
//	func TestMain(m *testing.M) { os.Exit(booted.Run(m.Run)) }
//
//	func TestFromOutside(t *testing.T) {
//		m := booted.Shared(t)
//		m.Unit(t, "a.service", "[Service]\nExecStart=true\nType=oneshot\n")
//		m.Run(t, "systemctl", "start", "a.service")
//	}
//
//	func TestFromInside(t *testing.T) {
//		booted.Within(t, func(t *testing.T) { ... }) // the body runs in there
//	}
//
// # How it is made
//
// keep.sh holds the machine's disk: the upper layer of an overlay over this
// machine's own root, in a tmpfs in a mount namespace of its own. So everything
// that is installed here is installed there, and what is written there is gone
// with it. boot.sh makes the namespaces and a control group; init.sh makes the
// mounts, leaves this machine's root by pivot_root(2) and becomes systemd, told
// that it is in a container ("container=", systemd.io/CONTAINER_INTERFACE).
// Boot and Stop or Cut may be repeated: the disk stays, so that is a reboot.
//
// # Invariants
//
//   - Nothing of this machine's state changes: no file (overlay, private /run,
//     /tmp, /dev), no kernel setting (/proc/sys is read-only but for the network
//     namespace's; no module can be loaded, no clock set), no socket, no
//     process, no control group but the one that is made and removed. What
//     units this machine has enabled, and its fstab, are not there. Run looks
//     whether it is so, in each package that has a machine: its tests run over an
//     empty layer on /etc, /run, /tmp, /usr, /var and others, which must be empty
//     at the end. So all is seen that they touch, and nothing that others do.
//   - Everything ends with its user. The machine hangs on a pipe from the test:
//     if the test is killed the pipe ends, and PID 1 with all below it is killed.
//   - Time is waited for by events: systemd itself says when it has booted
//     (NOTIFY_SOCKET), a process's end is waited for.
//
// # Limits
//
// Needs root that may make namespaces and mounts, as in a privileged container.
// Where the machine's resource controllers sit on cgroup version 1, or are not
// handed down to the test's own group, MemoryMax= and the like are not enforced
// in there: a test of an end for want of memory does what systemd-oomd does, which
// systemd takes as it takes the kernel's (Result=oom-kill). The kernel is shared.
package booted
