// Package activation is where sockets come into proxyd and where they are made
// for its generations: listening sockets inherited from systemd (LISTEN_FDS) or
// opened here, the private listeners that a generation is handed, ports for
// programs that bind by themselves, and the socket on which a generation says
// that it is ready.
//
// # Descriptors
//
// A [Listener] holds a plain descriptor number, not an *os.File or a
// net.Listener. The file that stands behind a listening socket is shared with
// systemd and with generations, and so is its O_NONBLOCK flag: File.Fd and
// exec.Cmd.ExtraFiles clear the flag for everybody, behind the back of the
// event loops. Whoever holds the Listener owns the descriptor; every descriptor
// made here has FD_CLOEXEC.
//
// # Groups
//
// Several sockets can listen at one TCP address (SO_REUSEPORT), so that each
// generation can be given one of its own. systemd makes such a group of a
// ListenStream= line that is repeated under ReusePort=yes; ListenGroup makes one
// here. Which member gets new connections is for the caller to say (see package
// proxy); a new group of ListenGroup gives all to its first.
//
// A group lives as long as somebody has it open. systemd has its own; for one that
// proxyd has opened a [Holder] is that somebody while no proxyd runs.
//
// # Invariants
//
//   - What was inherited is never closed, unlinked or bound again by this
//     package. A descriptor that cannot be used is an error that names it; it is
//     never passed over in silence, for then a client-facing address would be
//     dead and nobody would know.
//   - What is left with the service manager ([Store]) comes back beside the
//     listeners and is never taken for one: its name is none that a listener has.
//   - A socket file is replaced only where a connect to it was refused, that is
//     where nobody listens any more; and Close removes only the file that the
//     same Listener made.
//   - What arrives on a notify socket counts only if the kernel says that it was
//     sent by a process that the caller trusts, and every descriptor that came
//     with it is closed.
//
// # What it is not for
//
// It accepts nothing, knows no generations and decides nothing: proxy accepts,
// backend decides, cmd/proxyd brings them together.
package activation
