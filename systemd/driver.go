package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

var (
	// ErrGone is a unit that does not run any more as it was known.
	ErrGone = errors.New("its unit runs no more")
	// ErrRunning is a unit that was to be started and already runs.
	ErrRunning = errors.New("its unit already runs")
	// ErrNotPermitted is a call that systemd's policy refuses. The polkit rule in
	// systemd/units allows what is needed.
	ErrNotPermitted = errors.New("not permitted by systemd (a polkit rule must allow it)")
	// ErrClosed is a Driver after Close.
	ErrClosed = errors.New("the driver is closed")

	errOneShot = errors.New("by its Type=oneshot it counts as started only when its program has ended: write Type=notify or Type=exec there")

	errNoUnit = errors.New("no such unit is loaded")
)

// Config says how generations are made into units.
type Config struct {
	// Unit names a generation's unit, as web@{generation}.service; see
	// ParseTemplate.
	Unit string
	// User takes the user's own manager (systemctl --user) instead of the
	// machine's.
	User bool
	// Poll is how often a unit is read though nothing was told of it, the net
	// under lost messages; 0 is 2 s.
	Poll time.Duration
	// Lines is how many last lines of the journal LastLines gives; 0 is 20.
	Lines int
	// Log gets losses of the connection; nil is nowhere.
	Log hclog.Logger
}

// Driver starts, watches and ends generations that are units. Its methods may be
// called from several goroutines.
type Driver struct {
	config   Config
	template Template
	link     *link

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // link.run and every Unit's watch

	mu    sync.Mutex
	units map[string]*Unit // those watched, by name
}

// New connects to systemd. ctx is for that alone; the Driver lives until Close.
func New(ctx context.Context, c Config) (*Driver, error) {
	user := c.User
	return newDriver(ctx, c, func(ctx context.Context) (bus, error) { return dial(ctx, user) })
}

func newDriver(ctx context.Context, c Config, dial func(context.Context) (bus, error)) (*Driver, error) {
	t, err := ParseTemplate(c.Unit)
	if err != nil {
		return nil, err
	}
	if c.Poll == 0 {
		c.Poll = 2 * time.Second
	}
	if c.Lines == 0 {
		c.Lines = 20
	}
	if c.Poll < 0 || c.Lines < 0 {
		return nil, fmt.Errorf("configure the systemd driver: poll %v and lines %d must not be below 0", c.Poll, c.Lines)
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	conn, err := dial(life)
	if err != nil {
		end()
		return nil, err
	}
	if !stop() {
		conn.close()
		return nil, ctx.Err()
	}
	d := &Driver{config: c, template: t, link: newLink(dial, c.Log), life: life, end: end, units: map[string]*Unit{}}
	d.running.Add(1)
	go d.hold(conn)
	return d, nil
}

// hold keeps the connection until Close, which waits for it.
func (d *Driver) hold(conn bus) {
	defer d.running.Done()
	d.link.run(d.life, conn)
}

// Close ends the watching. The units run on.
func (d *Driver) Close() {
	d.mu.Lock()
	d.end()
	d.mu.Unlock()
	d.running.Wait()
}

// Names tells whether a unit is one that the template names.
func (d *Driver) Names(unit string) bool {
	_, _, ok := d.template.Read(unit)
	return ok
}

// UnitName gives the name of a generation's unit.
func (d *Driver) UnitName(generation uint64, release string) (string, error) {
	return d.template.Unit(generation, release)
}

// Check tells whether systemd could start a generation's unit as far as the unit
// goes: that it is there and that its settings are good.
func (d *Driver) Check(ctx context.Context, generation uint64, release string) error {
	name, err := d.UnitName(generation, release)
	if err != nil {
		return err
	}
	return d.CheckUnit(ctx, name)
}

// oneShot is the Type= of units that run something to its end.
const oneShot = "oneshot"

// CheckUnit is Check by the unit's name.
func (d *Driver) CheckUnit(ctx context.Context, name string) error {
	s, err := d.link.read(ctx, name)
	switch {
	case err != nil:
		return err
	case s.load != "loaded":
		return fmt.Errorf("unit %s is %s: %s", name, s.load, s.loadError)
	case s.kind == oneShot:
		return fmt.Errorf("unit %s: %w", name, errOneShot)
	}
	return nil
}

// UnitOf gives the unit that a process is in, "" where it is in none. The process
// cannot choose it: it is its control group. See Unit.Owns.
func (d *Driver) UnitOf(pid int) (string, error) { return unitOf(pid, d.config.User) }

// Identity is what finds a unit's run again. It is durable: JSON.
type Identity struct {
	Unit string `json:"unit"`
	// Invocation is systemd's invocation id (systemd.exec(5), $INVOCATION_ID), 32
	// hex digits; "" before it is known.
	Invocation string `json:"invocation,omitempty"`
}

// StartError is a start that systemd refused or could not begin.
type StartError struct {
	Unit  string
	Err   error
	Lines []string // the journal's last of the unit
}

func (e *StartError) Error() string { return fmt.Sprintf("start unit %s: %v", e.Unit, e.Err) }
func (e *StartError) Unwrap() error { return e.Err }

// Start starts a generation's unit. It calls record, which is to keep the
// identity, twice: before systemd is asked, and as soon as the invocation is
// known; if record fails the unit is stopped.
//
// It returns when there is a main process, or when the unit has started without
// one or has ended: a unit that failed is given, with Done closed, and has the
// reason and the lines. The error is a *StartError where there was nothing to
// begin with (no such unit, a bad one, not permitted, already running). After an
// error, and when ctx ends before, nothing of the unit runs.
func (d *Driver) Start(ctx context.Context, generation uint64, release string, record func(Identity) error) (*Unit, error) {
	name, err := d.template.Unit(generation, release)
	if err != nil {
		return nil, err
	}
	return d.StartUnit(ctx, name, record)
}

// StartUnit is Start by the unit's name, for a generation that was named by
// another template: see Template.Unit.
func (d *Driver) StartUnit(ctx context.Context, name string, record func(Identity) error) (*Unit, error) {
	u, err := d.claim(name)
	if err != nil {
		return nil, &StartError{Unit: name, Err: err}
	}
	u.since = time.Now()
	if err := d.begin(ctx, u, record); err != nil {
		u.drop()
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errRecord) {
			return nil, fmt.Errorf("start unit %s: %w", name, err)
		}
		return nil, &StartError{Unit: name, Err: err, Lines: d.journal(name, u.since)}
	}
	go u.watch()
	select {
	case <-u.begun:
	case <-u.watched:
	case <-ctx.Done():
	}
	switch {
	case closed(u.begun):
		if err = record(u.Identity()); err == nil {
			return u, nil
		}
		err = fmt.Errorf("%w: %w", errRecord, err)
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = ErrClosed
	}
	return nil, errors.Join(fmt.Errorf("start unit %s: %w", name, err), d.giveUp(ctx, name))
}

// giveUp ends what a Start that fails has begun, whatever became of ctx: the
// caller has nothing to end it with.
func (d *Driver) giveUp(ctx context.Context, name string) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	return d.finish(late, name, 0)
}

var errRecord = errors.New("its identity could not be kept")

// begin asks systemd to start u, and makes sure that it took it.
func (d *Driver) begin(ctx context.Context, u *Unit, record func(Identity) error) error {
	before, err := d.link.read(ctx, u.name)
	if err != nil {
		return err
	}
	if before.running() || before.job {
		return ErrRunning
	}
	if before.kind == oneShot {
		return errOneShot
	}
	if err := record(Identity{Unit: u.name}); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	if before.active == "failed" {
		// Else a run that failed counts against StartLimitBurst=.
		if err := d.resetFailed(ctx, u.name); err != nil {
			return err
		}
	}
	u.before, u.kind = before, before.kind
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := d.link.once(ctx, func(ctx context.Context, b bus) (err error) {
			u.job, err = b.start(ctx, u.name)
			return err
		})
		if err != nil && ctx.Err() != nil { // systemd may have taken it all the same
			return errors.Join(ctx.Err(), d.giveUp(ctx, u.name))
		}
		if !errors.Is(err, errLost) && !errors.Is(err, errAway) {
			return err
		}
		// It may have been taken all the same.
		now, readErr := d.link.read(ctx, u.name)
		if readErr != nil {
			return readErr
		}
		if now.job || now.running() || now.invocation != u.before.invocation {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lives gives ErrGone where Adopt would.
func (d *Driver) Lives(ctx context.Context, id Identity) error {
	_, err := d.find(ctx, id)
	return err
}

// find reads the unit of a run that was started before. It need not be of the
// template: that may be another one than when it was started, and what runs is
// known by its invocation.
func (d *Driver) find(ctx context.Context, id Identity) (state, error) {
	if !instance(id.Unit) {
		return state{}, fmt.Errorf("adopt unit %q: %w", id.Unit, ErrUnitName)
	}
	s, err := d.link.read(ctx, id.Unit)
	if err != nil {
		return state{}, fmt.Errorf("adopt: %w", err)
	}
	if !id.is(s) {
		return state{}, fmt.Errorf("adopt unit %s: %w", id.Unit, ErrGone)
	}
	return s, nil
}

// is tells whether a unit's state is that of a run that was recorded, which
// still runs.
func (id Identity) is(s state) bool {
	return s.running() && s.invocation != "" && (id.Invocation == "" || s.invocation == id.Invocation)
}

// Lives asks a manager that no Driver is for, the user's own or the machine's,
// whether a run that was recorded still runs there; ErrGone where not.
func Lives(ctx context.Context, user bool, id Identity) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	b, err := dial(ctx, user)
	if err != nil {
		return err
	}
	defer b.close()
	p, err := b.properties(ctx, id.Unit)
	if err != nil {
		return fmt.Errorf("read unit %s: %w", id.Unit, err)
	}
	if !id.is(stateOf(p)) {
		return fmt.Errorf("unit %s: %w", id.Unit, ErrGone)
	}
	return nil
}

// Adopt takes over a unit that was started before, or gives ErrGone. With no
// invocation known, what runs in the unit is taken.
func (d *Driver) Adopt(ctx context.Context, id Identity) (*Unit, error) {
	s, err := d.find(ctx, id)
	if err != nil {
		return nil, err
	}
	u, err := d.claim(id.Unit)
	if err != nil {
		return nil, fmt.Errorf("adopt unit %s: %w", id.Unit, err)
	}
	u.invocation, u.since = s.invocation, time.UnixMicro(int64(s.begun))
	u.observe(s)
	go u.watch()
	return u, nil
}

// Found is a generation whose unit runs. What the template does not name is
// zero.
type Found struct {
	Generation uint64
	Release    string
	Identity   Identity
}

// Found lists the generations whose units run.
func (d *Driver) Found(ctx context.Context) ([]Found, error) {
	var names []string
	err := d.link.again(ctx, func(ctx context.Context, b bus) (err error) {
		names, err = b.list(ctx, d.template.pattern())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list units of %s: %w", d.template, err)
	}
	var found []Found
	for _, name := range names {
		generation, release, ok := d.template.Read(name)
		if !ok {
			continue
		}
		s, err := d.link.read(ctx, name)
		if err != nil {
			return nil, err
		}
		if s.running() {
			found = append(found, Found{generation, release, Identity{name, s.invocation}})
		}
	}
	return found, nil
}

// Sweep has systemd stop every unit of the template that keep does not name, by
// the unit's own rules: what is in flight there has TimeoutStopSec= to finish. It
// waits for their ends, all at once and at most as long as wait, and gives the
// names of those that have ended and of those that are leaving, whose end systemd
// sees to. Two services must not share a template.
func (d *Driver) Sweep(ctx context.Context, keep map[string]bool, wait time.Duration) (ended, leaving []string, err error) {
	found, err := d.Found(ctx)
	if err != nil {
		return nil, nil, err
	}
	var strays []string
	for _, f := range found {
		if keep[f.Identity.Unit] {
			continue
		}
		if stopErr := d.stop(ctx, f.Identity.Unit); stopErr != nil {
			err = errors.Join(err, stopErr)
			continue
		}
		strays = append(strays, f.Identity.Unit)
	}
	late, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for _, name := range strays {
		gone, endErr := d.seeOff(ctx, late, name)
		switch {
		case endErr != nil:
			err = errors.Join(err, endErr)
		case gone:
			ended = append(ended, name)
		default:
			leaving = append(leaving, name)
		}
	}
	return ended, leaving, err
}

// seeOff waits until nothing runs of a unit that is being stopped, or late ends,
// and tells whether it has ended. A unit that failed is forgotten then.
func (d *Driver) seeOff(ctx, late context.Context, name string) (gone bool, err error) {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	for {
		s, err := d.link.read(ctx, name)
		if err != nil {
			return false, err
		}
		if !s.running() && !s.job {
			if s.active == "failed" {
				return true, d.resetFailed(ctx, name)
			}
			return true, nil
		}
		select {
		case <-w.wake:
		case <-time.After(d.config.Poll):
		case <-late.Done():
			return false, ctx.Err()
		}
	}
}

// finish has systemd stop a unit, with KILL after grace, and waits until nothing
// of it runs. A unit that failed is forgotten then.
func (d *Driver) finish(ctx context.Context, name string, grace time.Duration) error {
	w := d.link.watch(name)
	defer d.link.unwatch(w)
	asked := false
	late := time.After(grace)
	for {
		s, err := d.link.read(ctx, name)
		if err != nil {
			return err
		}
		if !s.running() && !s.job {
			if s.active == "failed" {
				return d.resetFailed(ctx, name)
			}
			return nil
		}
		if !asked {
			// Queued first, so that Restart= does not hold when it ends.
			if err := d.stop(ctx, name); err != nil {
				return err
			}
			asked = true
		}
		select {
		case <-late:
			if err := d.kill(ctx, name); err != nil {
				return err
			}
		case <-w.wake:
		case <-time.After(d.config.Poll):
		case <-ctx.Done():
			return fmt.Errorf("end unit %s: %w", name, ctx.Err())
		}
	}
}

// resetFailed has systemd forget that a unit failed, and how often.
func (d *Driver) resetFailed(ctx context.Context, name string) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error { return b.resetFailed(ctx, name) })
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("reset unit %s: %w", name, err)
	}
	return nil
}

// stop queues a stop job: with one, Restart= of the unit does not hold.
func (d *Driver) stop(ctx context.Context, name string) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error {
		_, err := b.stop(ctx, name)
		return err
	})
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("stop unit %s: %w", name, err)
	}
	return nil
}

// kill ends all processes of a unit.
func (d *Driver) kill(ctx context.Context, name string) error {
	err := d.link.again(ctx, func(ctx context.Context, b bus) error { return b.kill(ctx, name, "all", sigkill) })
	if err != nil && !errors.Is(err, errNoUnit) {
		return fmt.Errorf("kill unit %s: %w", name, err)
	}
	return nil
}
