// Package systemd is the systemd driver: each generation is an instance of the
// user's own template unit, started, watched and ended over D-Bus. Beside it
// are the units and snippets that are shipped (folder units) and, for tests
// only, a private systemd to try all that with (folder booted) and the tests of
// the whole in it (folder trial).
//
// # Why units
//
// A generation that is a unit outlives proxyd by itself, has limits, a user and
// a sandbox of its own, its lines are in the journal under its own name, and
// nothing that it forks gets away: the control group holds it all. What the exec
// driver must find out is simply known here, though not by the unit's state alone:
// that is of the main process and of what the unit's rules look after.
//
// # Invariants
//
//   - What happened is read, not heard. A signal of D-Bus only says when to look;
//     each look reads the whole unit. So a lost message, a lost connection or one
//     that gives no answer, a restart of the bus and systemd's daemon-reexec lose
//     nothing: after each the units are read again, and every Poll anyway.
//   - A call that failed says nothing of a unit. A Unit is done when systemd was
//     read to say so, never because systemd could not be asked.
//   - A run is known by its invocation id. A unit that was started anew by
//     somebody else is not the run that was known, and Adopt takes only the one
//     that was recorded, whatever template a Driver is made with by then.
//   - That the whole system goes down is nothing that a generation did: while it
//     does, the end of a unit is not told, so that no revert comes of it.
//   - Nothing in a release or a generation leaves its place in a unit's name:
//     it is escaped as systemd-escape(1) does, read back only if it is exactly
//     what would be written, and units that do not read so are not touched.
//   - A unit has ended when its control group is empty as well. What the unit's rules
//     spare (KillMode=process, none; SendSIGKILL=no), or did not end by KILL, goes on
//     accepting from the sockets that it has, while systemd calls the unit inactive.
//     Clear and Finish end it, Found and Adopt find it, and Start starts nothing
//     beside it (remnant.go).
//   - After an error of Start nothing of the unit runs, or it says so
//     (LeftError) and the Driver goes on until systemd was read to have nothing.
//
// # The start, and what ready means
//
// Start returns at the main process, not at the end of the start job, so that
// the caller's readiness deadline counts and not TimeoutStartSec= alone. Ready
// is closed when systemd calls the unit active, which is what its Type= means
// by it: under Type=notify READY=1, under Type=exec that it was executed, and in
// each that ExecStartPost= has ended well. What serves before may still be ended by
// systemd, so no generation gets clients before Ready, whatever its Type=. A unit
// that failed is given with Done closed; Exit and LastLines tell why, so that one
// path leads to the user for all of exit 1, a missing binary and a timeout.
// Template units should say Restart=no (the default): when to start again is
// proxyd's to decide; what is about to be restarted counts as ended, and so does
// what only RemainAfterExit= keeps active. Type=oneshot is refused.
//
// # Ownership
//
// A Driver owns its connection and one goroutine; a Unit owns one more until
// Done is closed or the Driver is, and what is left of one (LeftError) has one until
// it has ended. Close ends them and waits; units run on.
//
// # Not for
//
// Deciding anything, sockets, readiness checks, durable state: see package
// backend and cmd/proxyd. Writing units: they are the user's.
package systemd
