package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// handover gives a process the sockets and the environment of the generation
// whose unit it is in. That it is decided by its control group, which a process
// cannot choose: nothing that it says counts.
//
// A unit that outlived proxyd may ask before it is known to be ours, so until the
// first Sweep an unknown one waits.
func (d *systemdDriver) handover(ctx context.Context, pid int) (control.Handover, error) {
	for first := true; ; first = false {
		unit, err := d.units.UnitOf(pid)
		if err != nil {
			return control.Handover{}, err
		}
		d.mu.Lock()
		run := d.runs[unit]
		d.mu.Unlock()
		if run != nil && unit != "" {
			return run.handover()
		}
		if !first {
			return control.Handover{}, &control.Error{Code: control.NotPermitted,
				Message: fmt.Sprintf("process %d is in no unit that proxyd started for service %s (it is in %q)", pid, d.service, unit),
				Hint:    "`proxyctl exec` is for the ExecStart= of the unit that backend.unit names, which proxyd starts"}
		}
		select {
		case <-d.swept:
		case <-ctx.Done():
			return control.Handover{}, ctx.Err()
		}
	}
}

// handover gives duplicates of what is kept, which are the caller's.
func (r *systemdRun) handover() (control.Handover, error) {
	h := control.Handover{
		Service: r.driver.service, Generation: r.launch.ID, Release: r.launch.Release,
		Environment: map[string]string{}, Names: []string{},
	}
	for _, v := range r.environment() {
		h.Environment[v.name] = v.value
	}
	r.driver.sockets.mu.Lock() // so that nothing is released meanwhile
	defer r.driver.sockets.mu.Unlock()
	if r.driver.sockets.kept[r.launch.ID] != r.kept {
		if r.config.BindsItself() {
			return h, nil
		}
		return h, fmt.Errorf("the sockets of generation %d went with the proxyd that made them", r.launch.ID)
	}
	for _, l := range r.kept.handed {
		fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return h, fmt.Errorf("duplicate socket of listener %q: %w", l.Name, err)
		}
		h.FDs, h.Names = append(h.FDs, fd), append(h.Names, l.Name)
	}
	return h, nil
}
