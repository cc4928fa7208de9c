// Package process is the exec driver: it starts, watches and ends generations
// as proxyd's own children.
//
// # How a generation is started
//
// proxyd must know a process before the process can do anything. So it first
// starts itself again under the name proxyd-launch (LaunchIfAsked). That stub
// waits on a pipe. Its identity is written down (the record function of Start),
// and only then is it told what to run, and becomes that program by execve(2).
// If proxyd dies before, the pipe ends and the stub goes away: nothing ran. If
// proxyd dies after, the identity is on disk: the process is found again. The
// stub also knows its own pid, which LISTEN_PID must name (sd_listen_fds(3)).
//
// # Invariants
//
//   - No program runs whose identity was not recorded.
//   - A signal never reaches a recycled pid. Processes are held by pidfd
//     (pidfd_open(2)); one that was found by number is opened first, compared
//     second (start time, boot id) and signalled through the descriptor. The
//     exited main process stays a zombie until Clear, so that its number, which
//     is also its group's, is not given away.
//   - After Start gives an error, and after Clear gives none, no process is left that
//     proxyd may kill. Clear gives an error as long as there is one that it may not.
//   - A generation outlives a proxyd that is killed. Its output is a FIFO that
//     the program itself holds open for reading and writing, so that it gets
//     no SIGPIPE (fifo(7), pipe(7)); the next proxyd opens the same FIFO again.
//   - When Done is closed, LastLines holds what the main process wrote last.
//
// # Which processes belong to a generation
//
// A program may fork, leave its group (setsid(2)), lose its parent (double
// fork) and overwrite its environment (nginx writes its process title there).
// No single mark survives all of that, so each of these is enough:
//
//   - it is the main process, or a descendant of one that belongs (the tree of
//     /proc/PID/stat);
//   - its group or session was founded by one that belongs; those seen once are
//     remembered with their start times;
//   - its environment holds exactly PROXYD_CONTROL=marker and
//     PROXYD_GENERATION=number;
//   - its standard output or error is the generation's FIFO;
//   - it is an orphan that became proxyd's child and only one generation could
//     have forked it. Orphans come to proxyd because it is a child subreaper
//     (PR_SET_CHILD_SUBREAPER in prctl(2)).
//
// The limit: a process that hides from all of these in a generation that
// outlived its proxyd, and so is nobody's descendant any more, is not found. A
// control group would find it; the systemd driver has one.
//
// # Ownership
//
// Start, Adopt and Run borrow descriptors and never close or change them (no
// O_NONBLOCK is touched: files are passed as numbers, never through
// os.File.Fd). A Process owns a pidfd, the reader's end of the FIFO and two
// goroutines until Clear. A Driver owns one goroutine until Close. Children
// belong to the whole process, so there is one registry of them for all Drivers
// (children.go), and every fork is done under its lock. Children in proxyd's
// own process group are left alone: os/exec may be used beside this package, as
// long as it does not set Setpgid or Setsid.
//
// # Not for
//
// Deciding when to start, stop or restart, readiness, sockets and their
// addresses, durable state: see package backend and cmd/proxyd.
package process
