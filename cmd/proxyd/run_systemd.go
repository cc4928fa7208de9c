package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/systemd"
)

// systemdRun is one run of a generation's unit.
type systemdRun struct {
	driver  *systemdDriver
	launch  backend.Launch
	config  *Config // with what its plan fixed
	kept    *keptSockets
	unit    *systemd.Unit
	notices chan backend.Notice
}

var (
	_ backend.Run       = (*systemdRun)(nil)
	_ backend.Misfitter = (*systemdRun)(nil)
	_ backend.Reacher   = (*systemdRun)(nil)
	_ backend.Strander  = (*systemdRun)(nil)
	_ backend.Lingerer  = (*systemdRun)(nil)
	_ backend.Starter   = (*systemdRun)(nil)
)

// heed begins to hand on what the unit says of itself.
func (r *systemdRun) heed() {
	r.notices = make(chan backend.Notice)
	r.driver.calls.Add(1)
	go r.translate()
}

// translate hands on that the unit is active, where that means ready, and its
// status text. It ends with the unit or the driver; close waits for it.
func (r *systemdRun) translate() {
	defer r.driver.calls.Done()
	defer close(r.notices)
	ready := r.unit.Ready()
	if !r.unit.Tells() {
		ready = nil
	}
	for {
		n := backend.Notice{}
		select {
		case <-ready:
			ready = nil
			n.Ready = true
		case <-r.unit.Said():
		case <-r.unit.Unwatched():
			return
		}
		n.Status = r.unit.Status()
		select {
		case r.notices <- n:
		case <-r.unit.Unwatched():
			return
		}
	}
}

func (r *systemdRun) PID() int     { return r.unit.PID() }
func (r *systemdRun) Unit() string { return r.unit.Name() }

// Stranded says that a unit which outlived proxyd can be given no connections. Its
// release can run beside it in a unit of another name only.
func (r *systemdRun) Stranded() (why string, beside bool) {
	return r.kept.stranded, strings.Contains(r.config.Backend.Unit, "{generation}")
}

func (r *systemdRun) Addresses() map[string]net.Addr { return r.kept.addresses }
func (r *systemdRun) Done() <-chan struct{}          { return r.unit.Done() }
func (r *systemdRun) Exit() string                   { return r.unit.Exit() }
func (r *systemdRun) LastLines() []string            { return r.unit.LastLines() }
func (r *systemdRun) Notices() <-chan backend.Notice { return r.notices }

// Tells says that the unit's word is waited for: see systemd.Unit.Tells.
func (r *systemdRun) Tells() bool { return r.unit.Tells() }

// Started waits for all of the unit's start, whatever its Type=: what follows its
// process may fail, and then systemd ends that as well.
func (r *systemdRun) Started() <-chan struct{} { return r.unit.Ready() }

// Signal has systemd stop the unit by the unit's own rules, among them
// KillSignal=, whatever the signal. systemd may be away for a while, which the
// supervisor must not wait for.
func (r *systemdRun) Signal(syscall.Signal) error {
	r.driver.calls.Add(1)
	go r.ask("stop", r.unit.Stop)
	return nil
}

// Kill ends all processes of the unit.
func (r *systemdRun) Kill() error {
	r.driver.calls.Add(1)
	go r.ask("kill", r.unit.Kill)
	return nil
}

// ask asks something of systemd. It ends with the answer, or the limit of one
// call, or the driver; close waits for it.
func (r *systemdRun) ask(what string, call func() error) {
	defer r.driver.calls.Done()
	if err := r.driver.explainEnd(r.unit, call()); err != nil {
		r.driver.log.Warn("cannot end a unit", "how", what, "unit", r.unit.Name(), "error", err)
	}
}

// Clear waits for the end of all that is in the unit: by the unit's own rules, or
// where clients wait with KILL after some seconds. It has no limit of its own: a
// process that is left may accept from the generation's sockets, so these must be
// given to no other while there is one, and the next proxyd finds it.
func (r *systemdRun) Clear(ctx context.Context, hurry bool) {
	end := r.unit.Finish
	if hurry {
		end = r.unit.Clear
	}
	for {
		limited, cancel := context.WithTimeout(ctx, clearLimit)
		err := r.driver.explainEnd(r.unit, end(limited))
		again := limited.Done()
		if err != nil && ctx.Err() == nil && !errors.Is(err, systemd.ErrClosed) {
			r.driver.log.Warn("a generation has not ended yet, so its sockets stay its own", "generation", r.launch.ID,
				"unit", r.unit.Name(), "error", err, "left", r.unit.Left())
			<-again
		}
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, systemd.ErrClosed) {
			return
		}
	}
}

// Left says what Clear waits for once the main process has ended.
func (r *systemdRun) Left() string { return r.unit.Left() }

// Misfit says why it should have other sockets than it was handed.
func (r *systemdRun) Misfit() string { return r.driver.sockets.misfit(r.launch.ID, r.config) }

// Reach connects to this very generation where its address is everybody's.
func (r *systemdRun) Reach(ctx context.Context, listener string) (net.Conn, bool, error) {
	return r.driver.sockets.direct.reach(ctx, r.launch.ID, listener)
}

func (r *systemdRun) Waiting(listener string) (int, bool) { return r.kept.waiting(listener) }

// Command runs a readiness command, as proxyd's own child, with what the
// generation finds in its environment and with its placeholders.
func (r *systemdRun) Command(ctx context.Context, argv []string) error {
	env := activation.ScrubEnv(os.Environ())
	for _, v := range r.environment() {
		env = append(env, v.name+"="+v.value)
	}
	return runCheck(ctx, r.driver.processes, r.launch, r.driver.sockets.listeners, r.kept, argv, lastWins(env))
}
