// Package control is the control protocol of proxyd: HTTP/1.1 and JSON on a unix
// socket. proxyd serves it (Listen, Server) for a Service, proxyctl speaks it
// (Client), and so can anything that speaks HTTP:
//
//	S=/run/proxyd/web/control.sock
//	curl --unix-socket $S http://proxyd/v1/status
//	curl --unix-socket $S 'http://proxyd/v1/history?limit=20'
//	curl --unix-socket $S http://proxyd/v1/version
//	curl --unix-socket $S -N 'http://proxyd/v1/events?follow=1&after=0'
//	curl --unix-socket $S -d '{"release":"v2"}' http://proxyd/v1/stage
//	curl --unix-socket $S -d '{"release":"v2","if_current":3}' http://proxyd/v1/promote
//	curl --unix-socket $S -d '{"generation":4}' http://proxyd/v1/promote
//	curl --unix-socket $S -d '{}' http://proxyd/v1/revert
//	curl --unix-socket $S -d '{"to":3}' http://proxyd/v1/revert
//	curl --unix-socket $S -d '{}' http://proxyd/v1/retire
//	curl --unix-socket $S -d '{"generation":2,"mode":"now"}' http://proxyd/v1/stop
//	curl --unix-socket $S -d '{"max":"30s"}' http://proxyd/v1/hold
//	curl --unix-socket $S -d '{}' http://proxyd/v1/resume
//	curl --unix-socket $S -d '{}' http://proxyd/v1/reload
//
//	curl --unix-socket $S -d '{}' http://proxyd/v1/handover   # from within a generation
//
// What is read is a GET and gives its document: Status, entries of history,
// VersionInfo. What changes something is a POST and gives a Result, once it is
// done: a promote answers when new connections go to the new generation. Events
// are one HistoryEntry a line, for as long as one listens with follow=1.
//
// A handover is asked for by a generation that is a unit (proxyctl exec): its
// answer is a Handover, and its listening sockets come with the answer's first
// byte (SCM_RIGHTS in unix(7)). Which generation asks is decided by its process,
// so anybody who may connect may ask.
//
// An error is {"error":{"code","message","hint","output"}} with a code of this
// package and a matching HTTP status (400 usage, 403 not_permitted, 409
// superseded, 422 not_ready, 500 failed, 503 not_running, 504 timeout; also 404,
// 405 and 413, as usage).
//
// # Invariants
//
//   - A client that goes away cancels nothing that it asked for.
//   - Who asks is read from the descriptor (SO_PEERCRED), never from the
//     request. Only root and proxyd's own user may change
//     anything. The mode of the socket
//     decides who else may connect, and so look: its group.
//   - A request to change something is understood exactly or refused, with the
//     place and the reason: unknown, doubled or ill-typed fields, bodies over
//     64 KiB, labels that could reach a path or a terminal.
//   - Nobody can stall it for root: there is a time for each part of a request,
//     and a bounded number of connections. Where that is reached, a newcomer
//     displaces another: first strangers' connections without a whole request,
//     the one without a change for longest before others; for root and proxyd's
//     user also those that are being answered. Members of the group can get in
//     each other's way, with streams of events that they keep open.
//   - What is sent holds no byte that could steer a terminal, whoever wrote it.
//
// # Ownership
//
// A Server owns the listener that it serves, its connections and a goroutine for
// each; Shutdown ends them. A Client owns nothing between calls, but for the
// goroutine behind Events, which ends with its context or the connection.
//
// # Not for
//
// Deciding anything about generations (package backend), or showing anything to
// a person (cmd/proxyctl). It imports nothing of the project.
package control
