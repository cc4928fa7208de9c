package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
	"github.com/seed8fae2174/proxyd/systemd"
)

// systemdDriver adapts package systemd and the generations' own sockets to what
// the supervisor asks of a driver. A generation fetches its sockets by itself
// (`proxyctl exec` and handover.go), or reads its addresses in a file.
type systemdDriver struct {
	units     *systemd.Driver
	scope     string                  // whose units these are: scopeSystem or scopeUser
	processes *process.Driver         // runs readiness commands, and nothing else
	config    *atomic.Pointer[Config] // as the last reload left it
	service   string
	sockets   *generationSockets
	log       hclog.Logger

	calls sync.WaitGroup // what is being asked of systemd

	mu   sync.Mutex
	runs map[string]*systemdRun // by unit: whose processes may fetch sockets
	lost []runNote              // those that run and could not be taken over
	left map[uint64]*leftover   // by generation: what may run though it has no run

	leaving []runNote // those whose members are withheld until they have ended

	swept  chan struct{} // closed when it is known which units are ours
	settle sync.Once
	ending chan struct{} // closed by close
}

var _ backend.Driver = (*systemdDriver)(nil)

// systemdPlan is what of the config is fixed at a generation's creation: which
// unit it is, so that a revert runs what ran, and how it gets its sockets. What
// runs is the unit's business.
type systemdPlan struct {
	Unit        string `json:"unit,omitempty"` // as in the config; not in plans of older proxyds
	Sockets     string `json:"sockets"`
	Family      string `json:"family"`
	NonBlocking bool   `json:"non_blocking,omitempty"`
}

// with gives the service's config with what the plan fixed. The fixed addresses
// are the config's: they are what the units listen on now.
func (p systemdPlan) with(c *Config) *Config {
	planned := *c
	b := &planned.Backend
	b.Sockets, b.Family, b.NonBlocking = p.Sockets, p.Family, p.NonBlocking
	if p.Unit != "" {
		b.Unit = p.Unit
	}
	if !b.namedByFixed() {
		b.Fixed = nil
	}
	return &planned
}

// systemdIdentity is what of a run is written down: its unit and where it
// listens.
type systemdIdentity struct {
	systemd.Identity
	Scope string `json:"scope,omitempty"` // whose manager has it; not in those of older proxyds
	socketNote
}

func newSystemdDriver(ctx context.Context, live *atomic.Pointer[Config], processes *process.Driver, sockets *generationSockets, log hclog.Logger) (*systemdDriver, error) {
	c := live.Load()
	units, err := systemd.New(ctx, systemd.Config{
		Unit: driverTemplate(c.Backend.Unit), User: c.Backend.isUsers(), Log: log.Named("systemd"),
	})
	if err != nil {
		return nil, err
	}
	return &systemdDriver{
		units: units, scope: c.Backend.scope(), processes: processes, config: live, service: c.Name, sockets: sockets, log: log,
		runs: map[string]*systemdRun{}, left: map[uint64]*leftover{}, swept: make(chan struct{}), ending: make(chan struct{}),
	}, nil
}

// close ends the watching; the units run on.
func (d *systemdDriver) close() {
	close(d.ending)
	d.units.Close()
	d.calls.Wait()
}

// Plan fixes how a generation gets its sockets.
func (d *systemdDriver) Plan(uint64, string) (json.RawMessage, error) {
	b := d.config.Load().Backend
	return json.Marshal(systemdPlan{Unit: b.Unit, Sockets: b.Sockets, Family: b.Family, NonBlocking: b.NonBlocking})
}

// planOf reads a plan. One that the exec driver made, before the config named
// this one, says nothing of a unit, so the generation is planned anew.
func (d *systemdDriver) planOf(l backend.Launch) (plan systemdPlan, err error) {
	if plannedFor(l.Plan) == "exec" {
		if l.Plan, err = d.Plan(l.ID, l.Release); err != nil {
			return plan, err
		}
	}
	if err := json.Unmarshal(l.Plan, &plan); err != nil {
		return plan, fmt.Errorf("read plan: %w", err)
	}
	return plan, nil
}

// unitOf names the unit that a generation is to be started as: the one that it
// was planned as, though the config may name another template by now. Where that
// one has been taken away it is the config's, rather than none.
func (d *systemdDriver) unitOf(ctx context.Context, l backend.Launch, run *systemdRun) (string, error) {
	label := cmp.Or(run.kept.fixed, l.Release) // see driverTemplate
	template, err := systemd.ParseTemplate(driverTemplate(run.config.Backend.Unit))
	if err != nil {
		return "", err
	}
	name, err := template.Unit(l.ID, label)
	if err != nil || d.units.Names(name) || run.config.Backend.namedByFixed() != d.config.Load().Backend.namedByFixed() {
		return name, err
	}
	if err := d.units.CheckUnit(ctx, name); err != nil {
		d.log.Warn("the unit that a generation ran in is no more: it is started in the one that backend.unit names",
			"generation", l.ID, "unit", name, "error", err)
		return d.units.UnitName(l.ID, label)
	}
	return name, nil
}

// Start makes the generation's sockets and environment file, and starts its unit.
func (d *systemdDriver) Start(ctx context.Context, l backend.Launch, record func(json.RawMessage) error) (backend.Run, error) {
	plan, err := d.planOf(l)
	if err != nil {
		return nil, err
	}
	if err := d.awaitLeft(ctx, l.ID); err != nil {
		return nil, err
	}
	run := &systemdRun{driver: d, config: plan.with(d.config.Load()), launch: l}
	if run.kept, err = d.sockets.open(l.ID, run.config, l); err != nil {
		return nil, err
	}
	name, err := d.unitOf(ctx, l, run)
	if err != nil {
		return nil, err
	}
	if err := d.admit(name, run); err != nil {
		return nil, err
	}
	if err := run.writeEnvironment(name); err != nil {
		d.forget(name, run)
		return nil, err
	}
	run.unit, err = d.units.StartUnit(ctx, name, func(identity systemd.Identity) error {
		b, err := json.Marshal(systemdIdentity{identity, d.scope, run.kept.note()})
		if err != nil {
			return err
		}
		if err := d.noteRun(l, b); err != nil {
			return err
		}
		return record(b)
	})
	if err == nil && d.config.Load().Ready.Check == "notify" && !run.unit.Tells() {
		err = run.unit.Abandon(ctx, fmt.Errorf(`ready.check is "notify", and by its Type= unit %s never says that it is ready: write Type=notify there`, name))
	}
	if err != nil {
		d.keepLeft(l.ID, err)
		d.forget(name, run)
		return nil, explainStart(err, run.config.Backend.Unit)
	}
	run.heed()
	return run, nil
}

// explainStart gives the supervisor the journal's lines of a start that came to
// nothing, and a word on what is often the reason. unit is as in the config.
func explainStart(err error, unit string) error {
	var failed *systemd.StartError
	if !errors.As(err, &failed) {
		return err
	}
	switch {
	case !errors.Is(err, systemd.ErrRunning):
	case strings.Contains(unit, "{generation}"):
		err = fmt.Errorf("%w; wait for its end, or end it yourself (systemctl stop %s)", err, failed.Unit)
	default:
		err = fmt.Errorf("%w; name {generation} in backend.unit to run a release twice", err)
	}
	return &backend.StartError{Err: err, Lines: failed.Lines}
}

// admit lets the processes of a unit fetch the sockets of run.
func (d *systemdDriver) admit(unit string, run *systemdRun) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.runs[unit]; other != nil && other.launch.ID != run.launch.ID {
		return fmt.Errorf("unit %s is generation %s already; name {generation} in backend.unit to run a release twice",
			unit, generationName(other.launch.ID, other.launch.Release))
	}
	for name, other := range d.runs {
		if other.launch.ID == run.launch.ID { // an earlier run, perhaps in another unit
			delete(d.runs, name)
			continue
		}
		if name != unit && environmentPath(d.sockets.dir, name) == environmentPath(d.sockets.dir, unit) {
			return fmt.Errorf("unit %s has the environment file of %s, which is generation %s; name {generation} in backend.unit, or take another label",
				unit, name, generationName(other.launch.ID, other.launch.Release))
		}
	}
	d.runs[unit] = run
	return nil
}

func (d *systemdDriver) forget(unit string, run *systemdRun) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs[unit] == run {
		delete(d.runs, unit)
	}
}

// Adopt takes over a unit that an earlier proxyd started.
func (d *systemdDriver) Adopt(ctx context.Context, l backend.Launch, identity json.RawMessage) (backend.Run, error) {
	run := &systemdRun{driver: d, launch: l}
	plan, err := d.planOf(l)
	if err != nil {
		return nil, err
	}
	var known systemdIdentity
	if err := json.Unmarshal(identity, &known); err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	run.config = plan.with(d.config.Load())
	// After a reboot nothing of it is left, which is no failure of reclaim.
	if err := d.units.Lives(ctx, known.Identity); err != nil {
		return nil, adoptError(l.ID, err)
	}
	reclaimed, err := d.sockets.reclaim(l.ID, run.config, known.socketNote)
	if err != nil {
		d.lose(runNote{l.ID, l.Release, known})
		return nil, err
	}
	run.unit, err = d.units.Adopt(ctx, known.Identity)
	if err != nil {
		d.sockets.abandon(l.ID)
		return nil, adoptError(l.ID, err)
	}
	run.kept = d.sockets.adopt(l.ID, run.config, run.unit.PID(), reclaimed)
	// The note goes where the runtime directory was lost; uninstall reads it as well.
	if err := d.noteRun(l, identity); err != nil {
		d.log.Warn("cannot note which unit a generation is", "generation", l.ID, "error", err)
	}
	if err := d.admit(run.unit.Name(), run); err != nil {
		return nil, err
	}
	run.restoreEnvironment()
	if !d.units.Names(run.unit.Name()) {
		d.log.Info("a generation runs on in a unit of another template than backend.unit names", "generation", l.ID,
			"unit", run.unit.Name(), "template", d.config.Load().Backend.Unit)
	}
	run.heed()
	return run, nil
}

// lose keeps in mind a run that is known to be ours and cannot be reached, for
// Sweep to end: the note of it may have gone together with its sockets.
func (d *systemdDriver) lose(n runNote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = append(d.lost, n)
}

// adoptError is err in the supervisor's terms.
func adoptError(id uint64, err error) error {
	if errors.Is(err, systemd.ErrGone) {
		return fmt.Errorf("adopt generation %d: %w", id, backend.ErrGone)
	}
	return err
}

// Found lists the generations whose units run. What a unit's name does not say
// is in the note that Start left.
func (d *systemdDriver) Found(ctx context.Context) ([]backend.Found, error) {
	units, err := d.units.Found(ctx)
	if err != nil {
		return nil, err
	}
	notes := d.readNotes()
	var found []backend.Found
	for _, n := range notes { // those that today's template does not name
		if !d.units.Names(n.Identity.Unit) && d.units.Lives(ctx, n.Identity.Identity) == nil {
			units = append(units, systemd.Found{Identity: n.Identity.Identity})
		}
	}
	for _, u := range units {
		i := slices.IndexFunc(notes, func(n runNote) bool { return n.Identity.Unit == u.Identity.Unit })
		f := backend.Found{ID: u.Generation, Release: u.Release}
		known := systemdIdentity{Identity: u.Identity, Scope: d.scope}
		if i >= 0 {
			f.ID, f.Release = notes[i].Generation, notes[i].Release
			known.socketNote = notes[i].Identity.socketNote
		}
		if i < 0 && u.Left {
			continue // what somebody's unit left behind is no generation
		}
		if f.ID == 0 {
			d.log.Warn("a unit of the template is no generation that is known", "unit", u.Identity.Unit)
			continue
		}
		if f.Identity, err = json.Marshal(known); err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, nil
}

// Release gives up what was kept for a generation between its runs. Where
// something of it may still run, that is done once it has ended: it may hold the
// sockets, and by its note the next proxyd finds it.
func (d *systemdDriver) Release(id uint64) {
	d.mu.Lock()
	for name, run := range d.runs {
		if run.launch.ID == id {
			delete(d.runs, name)
			removeEnvironment(d.sockets.dir, name)
		}
	}
	left := d.left[id]
	if left != nil && !left.released {
		left.released = true
		d.calls.Add(1)
		go d.releaseLeft(id, left)
	}
	d.mu.Unlock()
	if left == nil {
		d.sockets.release(id)
	}
}

// clearLimit is how long the end of a unit is waited for before that is told. It is
// far beyond what systemd takes to kill.
const clearLimit = time.Minute
