package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
	"github.com/seed8fae2174/proxyd/systemd"
)

// A generation that runs is taken over by the driver that has started it, and no
// other one can: processes are children of proxyd, units belong to one manager.
// So a proxyd whose config names another driver or another scope would leave it
// behind, with nobody to end it. It does not start then.

// plannedFor says which driver a generation was planned for.
func plannedFor(plan json.RawMessage) string {
	var p struct {
		Command []string `json:"command"` // without one nothing is a child
	}
	if json.Unmarshal(plan, &p) == nil && len(p.Command) > 0 {
		return "exec"
	}
	return "systemd"
}

// anyIdentity is what any driver has written down of a run.
type anyIdentity struct {
	systemdIdentity
	Process process.Identity `json:"process"`
}

// checkTakeOver finds generations of the durable state that run, and that the
// driver which c names cannot take over. watched says that the proxyd which has
// started them still runs: its children end with it.
func checkTakeOver(ctx context.Context, c *Config, state backend.Durable, watched bool) error {
	var errs []error
	for _, g := range state.Generations {
		var known anyIdentity
		if len(g.Identity) == 0 || json.Unmarshal(g.Identity, &known) != nil {
			continue // whoever takes it over says what is wrong with it
		}
		if known.Unit == "" && watched {
			continue
		}
		if err := c.leftBehind(ctx, known); err != nil {
			errs = append(errs, fmt.Errorf("generation %s runs %w", generationName(g.ID, g.Release), err))
		}
	}
	return errors.Join(errs...)
}

// leftBehind tells of a run that goes on and is another driver's. Where nobody
// can be asked it is taken to go on.
func (c *Config) leftBehind(ctx context.Context, known anyIdentity) error {
	b := c.Backend
	switch {
	case known.Unit == "" && b.Driver != "exec":
		err := known.Process.Lives()
		if errors.Is(err, process.ErrGone) {
			return nil
		}
		return errors.Join(fmt.Errorf(`as process %d, and with backend.driver = %q nobody looks after it: set that to "exec" again, start proxyd and stop it, which ends its generations`,
			known.Process.PID, b.Driver), err)
	case known.Unit == "", b.Driver == "systemd" && (known.Scope == "" || known.Scope == b.scope()):
		return nil
	}
	err := systemd.Lives(ctx, known.isUsers(b), known.Identity)
	if errors.Is(err, systemd.ErrGone) {
		return nil
	}
	return errors.Join(whereItRuns(known, b), err)
}

func (known anyIdentity) isUsers(b BackendConfig) bool {
	return known.Scope == scopeUser || known.Scope == "" && b.isUsers()
}

// whereItRuns says of a unit that the driver of b does not look after what is to
// be done about it.
func whereItRuns(known anyIdentity, b BackendConfig) error {
	systemctl, want := "systemctl", fmt.Sprintf("backend.driver = %q", b.Driver)
	if known.isUsers(b) {
		systemctl = "systemctl --user"
	}
	if b.Driver == "systemd" {
		want = fmt.Sprintf("backend.scope = %q", b.Scope)
	}
	return fmt.Errorf("in unit %s, and with %s nobody looks after it: set that as it was, or stop proxyd and end the unit (%s stop %s) before proxyd is started with it",
		known.Unit, want, systemctl, known.Unit)
}
