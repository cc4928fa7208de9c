package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
)

// execDriver adapts package process and the generations' own sockets of package
// activation to what the supervisor asks of a driver.
type execDriver struct {
	processes *process.Driver
	config    *atomic.Pointer[Config] // as the last reload left it
	service   string
	control   string // path of the control socket, which marks our processes
	sockets   *generationSockets
	holder    *groupHolder
	ending    <-chan struct{} // proxyd is to end
	log       hclog.Logger
}

var _ backend.Driver = (*execDriver)(nil)

// execPlan is what a generation runs, fixed at its creation, so that a revert
// runs what ran, whatever the config says by then. The listeners are not part of
// it: they are those of the service, as they are when it starts.
type execPlan struct {
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	Dir     string            `json:"dir,omitempty"`
	Sockets string            `json:"sockets"`
	Family  string            `json:"family"`

	NonBlocking bool `json:"non_blocking,omitempty"`
}

// with gives the service's config with what the plan fixed.
func (p execPlan) with(c *Config) *Config {
	planned := *c
	planned.Backend.Command, planned.Backend.Env, planned.Backend.Dir = p.Command, p.Env, p.Dir
	planned.Backend.Sockets, planned.Backend.Family = p.Sockets, p.Family
	planned.Backend.NonBlocking = p.NonBlocking
	return &planned
}

// Plan fixes what a generation runs. Its addresses are picked when it starts.
func (d *execDriver) Plan(uint64, string) (json.RawMessage, error) {
	b := d.config.Load().Backend
	return json.Marshal(execPlan{
		Command: b.Command, Env: b.Env, Dir: b.Dir, Sockets: b.Sockets, Family: b.Family, NonBlocking: b.NonBlocking,
	})
}

// Start makes the generation's directory, sockets and notify socket, and starts
// its process.
func (d *execDriver) Start(ctx context.Context, l backend.Launch, record func(json.RawMessage) error) (backend.Run, error) {
	if plannedFor(l.Plan) != "exec" { // by an earlier config, so that it says no command
		var err error
		if l.Plan, err = d.Plan(l.ID, l.Release); err != nil {
			return nil, err
		}
	}
	var plan execPlan
	err := json.Unmarshal(l.Plan, &plan)
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	run := &execRun{driver: d, config: plan.with(d.config.Load()), launch: l, known: make(chan struct{})}
	if run.kept, err = d.sockets.open(l.ID, run.config, l); err != nil {
		return nil, err
	}
	argv, env, dir, err := d.commandLine(run)
	if err != nil {
		return nil, err
	}
	if err := run.listenNotify(); err != nil {
		return nil, err
	}
	var files []process.File
	for _, s := range run.kept.handed {
		files = append(files, process.File{Name: s.Name, FD: s.FD})
	}
	p, err := d.processes.Start(ctx, process.Spec{
		Generation: l.ID,
		Argv:       argv,
		Env:        env,
		Dir:        dir,
		Files:      files,
		Kept:       d.sockets.direct.kept,
		OutputPath: d.outputPath(l.ID),
	}, func(identity process.Identity) error {
		d.holder.watch(identity)
		b, err := json.Marshal(execIdentity{identity, run.kept.note()})
		if err != nil {
			return err
		}
		return record(b)
	})
	run.process = p
	close(run.known)
	if err != nil {
		run.notify.Close()
		return nil, err
	}
	return run, nil
}

// execIdentity is what of a run is written down: its process and where it
// listens.
type execIdentity struct {
	Process process.Identity `json:"process"`
	socketNote
}

func (d *execDriver) outputPath(id uint64) string {
	return filepath.Join(d.sockets.genDir(id), "output")
}

func (d *execDriver) notifyPath(id uint64) string {
	return filepath.Join(d.sockets.genDir(id), "notify")
}

// Adopt takes over a process of an earlier proxyd. The sockets that it was
// handed are its own now: proxyd's end of them went with the earlier proxyd.
func (d *execDriver) Adopt(_ context.Context, l backend.Launch, identity json.RawMessage) (backend.Run, error) {
	run := &execRun{driver: d, launch: l, known: make(chan struct{})}
	var plan execPlan
	var known execIdentity
	if err := errors.Join(json.Unmarshal(l.Plan, &plan), json.Unmarshal(identity, &known)); err != nil {
		return nil, fmt.Errorf("read plan and identity: %w", err)
	}
	run.config = plan.with(d.config.Load())
	// After a reboot nothing of it is left, which is no failure of reclaim.
	if err := known.Process.Lives(); errors.Is(err, process.ErrGone) {
		return nil, fmt.Errorf("adopt generation %d: %w", l.ID, backend.ErrGone)
	}
	reclaimed, err := d.sockets.reclaim(l.ID, run.config, known.socketNote)
	if err != nil {
		return nil, err
	}
	// First what can be undone: once adopted, a process is watched to its end.
	if err := run.listenNotify(); err != nil {
		d.sockets.abandon(l.ID)
		return nil, err
	}
	run.process, err = d.processes.Adopt(known.Process, l.ID, d.outputPath(l.ID))
	close(run.known)
	if err != nil {
		if errors.Is(err, process.ErrGone) {
			err = fmt.Errorf("adopt generation %d: %w", l.ID, backend.ErrGone)
		}
		d.sockets.abandon(l.ID)
		return nil, errors.Join(err, run.notify.Close())
	}
	d.holder.watch(known.Process)
	run.kept = d.sockets.adopt(l.ID, run.config, run.PID(), reclaimed)
	return run, nil
}

// outputOf tells from the path of a FIFO below the runtime directory which
// generation writes to it: how a program is found that has overwritten its
// environment.
func outputOf(runtimeDir string) func(path string) (generation uint64, ok bool) {
	return func(path string) (uint64, bool) {
		dir, err := filepath.EvalSymlinks(runtimeDir)
		if err != nil {
			return 0, false
		}
		name, ok := strings.CutPrefix(filepath.Base(filepath.Dir(path)), "gen-")
		id, err := strconv.ParseUint(name, 10, 64)
		return id, ok && err == nil && path == filepath.Join(dir, "gen-"+name, "output")
	}
}

// Found lists the generations that run, by what their environment and their
// output say.
func (d *execDriver) Found(context.Context) ([]backend.Found, error) {
	running, err := d.processes.Running()
	if err != nil {
		return nil, err
	}
	var found []backend.Found
	for _, r := range running {
		if !r.Main {
			continue
		}
		identity, err := json.Marshal(execIdentity{Process: r.Identity})
		if err != nil {
			return nil, err
		}
		found = append(found, backend.Found{ID: r.Generation, Release: r.Release, Identity: identity})
	}
	return found, nil
}

// Sweep ends the processes of earlier proxyds that belong to none of keep, and
// removes what directories they left.
func (d *execDriver) Sweep(_ context.Context, keep []uint64) error {
	kept := map[uint64]bool{}
	for _, id := range keep {
		kept[id] = true
	}
	_, err := d.processes.Sweep(kept)
	return errors.Join(err, d.sockets.sweep(keep, nil))
}

// Release gives up what was kept for a generation between its runs.
func (d *execDriver) Release(id uint64) { d.sockets.release(id) }
