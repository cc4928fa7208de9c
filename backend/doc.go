// Package backend decides what becomes of a service's generations.
//
// It has a pure core and a thin shell around it:
//
//   - Machine is the state machine of DESIGN's diagram. Step takes one event
//     and gives back the actions that follow from it. It knows no clock, does
//     no I/O and logs nothing, so every order of events can be tried in a test.
//   - Supervisor owns one Machine. A single goroutine feeds it events, runs the
//     actions that come back, and tags every timer with the generation, the
//     kind and the serial number that it was set for, so that a timer which
//     fires too late means nothing.
//   - Store keeps the durable part of the Machine on disk, always the state
//     before or the state after a step.
//   - The readiness checks (ready.go) prove that a generation can serve.
//
// The outside world comes in through three small seams that cmd/proxyd adapts:
// Driver (starts, watches and ends a generation's processes), Router (the data
// path: where new connections go, what is in flight) and Store's files.
//
// # Invariants
//
//   - After the first promote exactly one generation is current.
//   - A promote is written to disk around the switch: the new state is written
//     and fsynced beside the old one, then the route is switched, then the file
//     is renamed into place. Killed before the rename, proxyd comes back with
//     the old generation; killed after it, with the new one.
//   - What may have been given clients drains before it ends, also where it never
//     became current: between the route and the file of a switch that failed, or
//     that proxyd was killed in, they may have come (machine_idle.go).
//   - A revert switches first and writes after, because going back must work at
//     once and also with a full disk. A failed write is logged, and tried again
//     with the next change, and after a while.
//   - Only one stage, promote or revert runs at a time. A second one is refused
//     by name. `stop` of the generation that is being started cancels the first,
//     and so does a revert to another one: what has no client yet does not stand
//     in the way back.
//   - What was decided outlives proxyd as well: a hold, a drain deadline, what is
//     left of a probation, and that a draining generation is not to stand by.
//   - `previous` is a generation that could serve when it was superseded. One
//     that died as the current one is not, so a revert after proxyd's own goes
//     nowhere, rather than to what has just failed.
//   - proxyd itself switches in two cases only, and history says why: it reverts
//     from what failed, and it moves (machine_move.go) to another run of the
//     current release where the data path can serve that one better. A move is
//     made while nothing else is wanted or on trial, gives way to all that an
//     operator asks for, cuts nothing, and leaves `previous` as it is.
//   - A generation that outlived proxyd and can be given no client any more is never
//     switched to. Another run of its release takes the place of a current one at
//     once, which need not wait for its end; it drains (machine_strand.go). This is
//     the one change of the current generation that no switch makes: new
//     connections went nowhere before it.
//   - Where generations outlive proxyd (Config.Leave), its end ends none of them:
//     it takes no more clients, lets those it has finish, and changes nothing
//     else, so that the next proxyd finds what a crash would leave.
//   - Numbers of generations rise and are never used again: the next number is
//     on disk before the first process of a generation starts.
//
// # Ownership
//
// The Supervisor owns every goroutine it starts and waits for them in Run. The
// Driver owns processes and their sockets, the Router owns connections.
//
// # Not for
//
// Bytes, descriptors, the control protocol, the command line: other packages.
package backend
