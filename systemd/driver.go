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
	running sync.WaitGroup // link.run, every Unit's watch, what seeOffLater and endLater began

	mu    sync.Mutex
	units map[string]*Unit // those watched, by name
	left  map[string]bool  // those that are ended though nobody waits for it
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
	d := &Driver{config: c, template: t, link: newLink(dial, c.Log), life: life, end: end, units: map[string]*Unit{}, left: map[string]bool{}}
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

// Spares tells the KillMode= of a generation's unit where it spares processes when
// the main one ends (systemd.kill(5)); "" where it spares none.
func (d *Driver) Spares(ctx context.Context, generation uint64, release string) (killMode string, err error) {
	name, err := d.UnitName(generation, release)
	if err != nil {
		return "", err
	}
	s, err := d.link.read(ctx, name)
	if err != nil || s.killMode != "process" && s.killMode != "none" {
		return "", err
	}
	return s.killMode, nil
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
