package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
)

// execRun is one process of a generation under the exec driver.
type execRun struct {
	driver  *execDriver
	launch  backend.Launch
	config  *Config // with what its plan fixed
	kept    *keptSockets
	notify  *activation.NotifySocket
	notices chan backend.Notice

	known   chan struct{}    // closed once process is set
	process *process.Process // nil where the start failed

	left atomic.Pointer[string] // what Clear waits for
}

var (
	_ backend.Run       = (*execRun)(nil)
	_ backend.Reacher   = (*execRun)(nil)
	_ backend.Strander  = (*execRun)(nil)
	_ backend.Lingerer  = (*execRun)(nil)
	_ backend.Misfitter = (*execRun)(nil)
)

// listenNotify opens the socket on which the generation says that it is ready.
func (r *execRun) listenNotify() error {
	notify, err := activation.ListenNotify(r.driver.notifyPath(r.launch.ID), r.owns)
	if err != nil {
		return err
	}
	r.notify, r.notices = notify, make(chan backend.Notice)
	go r.translate()
	return nil
}

// owns says whether a process belongs to this run. A program may speak before
// its start has returned here, so the answer waits for that.
func (r *execRun) owns(pid int) bool {
	<-r.known
	return r.process != nil && r.process.Owns(pid)
}

// translate hands notifications on. It ends when the notify socket is closed,
// by Clear or a failed start; nobody waits for it.
func (r *execRun) translate() {
	defer close(r.notices)
	for n := range r.notify.Notifications() {
		select {
		case r.notices <- backend.Notice{Ready: n.Ready, Stopping: n.Stopping, Status: n.Status}:
		case <-r.notify.Done():
		}
	}
}

func (r *execRun) PID() int     { return r.process.Identity().PID }
func (r *execRun) Unit() string { return "" }

// Stranded says that a process which outlived proxyd can be given no connections.
func (r *execRun) Stranded() (why string, beside bool) { return r.kept.stranded, true }

func (r *execRun) Addresses() map[string]net.Addr { return r.kept.addresses }
func (r *execRun) Done() <-chan struct{}          { return r.process.Done() }
func (r *execRun) Signal(s syscall.Signal) error  { return r.process.Signal(s) }
func (r *execRun) Kill() error                    { return r.process.Kill() }
func (r *execRun) LastLines() []string            { return r.process.LastLines() }
func (r *execRun) Tells() bool                    { return false } // it shows when it first speaks
func (r *execRun) Notices() <-chan backend.Notice { return r.notices }

// Exit says how the main process ended.
func (r *execRun) Exit() string {
	e := r.process.Exit()
	switch {
	case !e.Known:
		return "its process ended"
	case e.Signal != 0:
		return fmt.Sprintf("its process was ended by signal %d (%s)", int(e.Signal), e.Signal)
	default:
		return fmt.Sprintf("its process exited with status %d", e.Code)
	}
}

// clearPause is how long what cannot be ended is left alone.
const clearPause = time.Second

// Clear ends what the main process left behind. What proxyd may not kill, as it has
// become another user's, may go on accepting from the generation's sockets, so these
// must be given to no other before somebody has ended it. Clients that wait for the
// generation's own next run do not wait for that, and the end of proxyd does not.
func (r *execRun) Clear(ctx context.Context, hurry bool) {
	defer r.notify.Close()
	for told := false; ; told = true {
		err := r.process.Clear()
		if err == nil {
			r.left.Store(nil)
			return
		}
		if !told {
			r.driver.log.Warn("cannot clear up after a generation", "generation", r.launch.ID, "error", err)
		}
		if hurry {
			return
		}
		left := "what it left behind cannot be ended: " + err.Error()
		r.left.Store(&left)
		select {
		case <-time.After(clearPause):
		case <-r.driver.ending:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Left says what Clear waits for.
func (r *execRun) Left() string {
	if left := r.left.Load(); left != nil {
		return *left
	}
	return ""
}

// Waiting counts the connections in a queue that proxyd holds open.
func (r *execRun) Waiting(listener string) (int, bool) { return r.kept.waiting(listener) }

// Misfit says why it should have other sockets than it was handed.
func (r *execRun) Misfit() string { return r.driver.sockets.misfit(r.launch.ID, r.config) }

// Reach connects to this very generation where its address is everybody's.
func (r *execRun) Reach(ctx context.Context, listener string) (net.Conn, bool, error) {
	return r.driver.sockets.direct.reach(ctx, r.launch.ID, listener)
}

// Command runs a readiness command, with the generation's environment and its
// placeholders.
func (r *execRun) Command(ctx context.Context, argv []string) error {
	_, env, _, err := r.driver.commandLine(r)
	if err != nil {
		return err
	}
	return runCheck(ctx, r.driver.processes, r.launch, r.driver.sockets.listeners, r.kept, argv, env)
}

// runCheck runs a readiness command with its placeholders filled in.
func runCheck(ctx context.Context, processes *process.Driver, l backend.Launch, listeners []string, k *keptSockets, argv, env []string) error {
	values, _ := placeholderValues(l, listeners, k.addresses)
	argv, err := Expand(argv, values)
	if err != nil {
		return err
	}
	if out, err := processes.Run(ctx, argv, env); err != nil {
		return fmt.Errorf("%w%s", err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Sprintf(": %q", last)
	}
	return ""
}
