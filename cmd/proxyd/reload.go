package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"sync"
	"syscall"

	"github.com/seed8fae2174/proxyd/systemd"
)

// reloading keeps two reloads from being made at once.
type reloading struct {
	sync.Mutex
	read func() (*Config, error) // the config as file and flags say now
}

// reload reads the config again and applies it, or keeps the one in force and
// says why. Generations that run stay as they are.
func (d *daemon) reload(ctx context.Context, by string) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.ready.Load() { // to systemd a reload ends with READY=1, which must be true
		d.tell(systemd.Reloading())
		defer d.tell("READY=1")
	}
	err := d.applyConfig(ctx)
	if err != nil {
		d.log.Error("cannot reload: the config in force is kept", "by", by, "error", err)
		return err
	}
	d.log.Info("reloaded the config", "by", by)
	return nil
}

func (d *daemon) applyConfig(ctx context.Context) error {
	next, err := d.reloading.read()
	if err != nil {
		return err
	}
	if err := next.CheckListeners(d.listeners); err != nil {
		return err
	}
	if err := d.fixedWhileRunning(ctx, next); err != nil {
		return err
	}
	if err := d.supervisor.Reconfigure(ctx, policyOf(next), readinessOf(next), next.Stop.signal()); err != nil {
		return err
	}
	d.live.Store(next)
	return nil
}

// fixedWhileRunning names what differs and takes a new proxyd to come about, and
// which generations that one could not take over.
func (d *daemon) fixedWhileRunning(ctx context.Context, next *Config) error {
	now := d.live.Load()
	var keys []string
	note := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			keys = append(keys, key)
		}
	}
	note("[[listener]]", now.Listeners, next.Listeners)
	note("backend.driver", now.Backend.Driver, next.Backend.Driver)
	note("backend.unit", now.Backend.Unit, next.Backend.Unit)
	note("backend.scope", now.Backend.Scope, next.Backend.Scope)
	note("backend.path", now.Backend.Path, next.Backend.Path)
	note("[limits]", now.Limits, next.Limits)
	if len(keys) == 0 {
		return nil
	}
	err := fmt.Errorf("%s cannot change while proxyd runs: a restart of proxyd applies it", strings.Join(keys, " and "))
	if d.units == nil || next.Backend.Driver == "systemd" && next.Backend.scope() == now.Backend.scope() {
		return err
	}
	st, statusErr := d.supervisor.Status(ctx)
	if statusErr != nil {
		return statusErr
	}
	for _, g := range st.Generations {
		if g.Unit != "" {
			known := anyIdentity{systemdIdentity: systemdIdentity{Identity: systemd.Identity{Unit: g.Unit}, Scope: now.Backend.scope()}}
			err = fmt.Errorf("%w; but generation %s runs %w", err, generationName(g.ID, g.Release), whereItRuns(known, next.Backend))
		}
	}
	return err
}

// reloadAtHangup reloads at each SIGHUP. It ends with ctx; serve waits for it.
func (d *daemon) reloadAtHangup(ctx context.Context, hangup chan os.Signal) {
	defer d.background.Done()
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			_ = d.reload(ctx, "SIGHUP") // it is logged
		case <-ctx.Done():
			return
		}
	}
}

// hangups gives the channel of SIGHUP, which ends proxyd no more from here on.
func hangups() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}
