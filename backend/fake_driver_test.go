package backend

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// fakeDriver starts runs that do what a test says. It outlives a Supervisor, as
// processes do.
type fakeDriver struct {
	mu       sync.Mutex
	alive    map[uint64]*fakeRun
	starts   []uint64
	plans    map[uint64]string // of those
	planned  string            // more of what Plan gives
	moves    []uint64          // those of starts that were for a move
	released []uint64
	misfits  map[uint64]string // why the next run of a generation should have other sockets
	hurried  []uint64          // those whose end clients waited for
	swept    []uint64
	checks   int                 // readiness commands that were run
	apart    map[uint64]string   // why no connection can be given to a run any more
	startErr map[string]error    // by release
	program  map[string]behavior // by release
}

// behavior is what a release does.
type behavior struct {
	unready    error // its readiness command fails with this
	ignoreTerm bool
	lines      []string
	hangs      bool // its start does not come back
}

func newFakeDriver() *fakeDriver {
	return &fakeDriver{alive: map[uint64]*fakeRun{}, startErr: map[string]error{}, plans: map[uint64]string{}, program: map[string]behavior{}}
}

var errNotReady = errors.New("status 1: \"no database\"")

func (d *fakeDriver) Plan(id uint64, release string) (json.RawMessage, error) {
	if release == "unplannable" {
		return nil, errors.New("expand command: no such key")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(release + d.planned)
}

func (d *fakeDriver) Start(ctx context.Context, l Launch, record func(json.RawMessage) error) (Run, error) {
	identity, err := json.Marshal(strconv.FormatUint(l.ID, 10))
	if err != nil {
		return nil, err
	}
	if err := record(identity); err != nil {
		return nil, err
	}
	d.mu.Lock()
	if d.program[l.Release].hangs {
		d.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer d.mu.Unlock()
	d.starts = append(d.starts, l.ID)
	if l.Moves {
		d.moves = append(d.moves, l.ID)
	}
	d.plans[l.ID] = string(l.Plan)
	if err := d.startErr[l.Release]; err != nil {
		return nil, err
	}
	if d.alive[l.ID] != nil {
		panic("a generation was started while it runs")
	}
	return d.run(l.ID, l.Release), nil
}

// run adds a living run. The caller holds d.mu.
func (d *fakeDriver) run(id uint64, release string) *fakeRun {
	r := &fakeRun{driver: d, id: id, release: release, behavior: d.program[release], done: make(chan struct{})}
	d.alive[id] = r
	return r
}

// outlived is a process that an earlier proxyd started.
func (d *fakeDriver) outlived(id uint64, release string) *fakeRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.run(id, release)
}

func (d *fakeDriver) Adopt(_ context.Context, l Launch, identity json.RawMessage) (Run, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.alive[l.ID]; r != nil {
		return r, nil
	}
	return nil, ErrGone
}

func (d *fakeDriver) Found(context.Context) ([]Found, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []Found
	for id, r := range d.alive {
		identity, err := json.Marshal(strconv.FormatUint(id, 10))
		if err != nil {
			return nil, err
		}
		found = append(found, Found{ID: id, Release: r.release, Identity: identity})
	}
	return found, nil
}

func (d *fakeDriver) Sweep(_ context.Context, keep []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, r := range d.alive {
		if !slices.Contains(keep, id) {
			d.swept = append(d.swept, id)
			delete(d.alive, id)
			close(r.done)
		}
	}
	return nil
}

func (d *fakeDriver) Release(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.released = append(d.released, id)
}

// running lists the numbers of the living runs.
func (d *fakeDriver) running() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.alive))
}

// exit ends a run by itself.
func (d *fakeDriver) exit(id uint64, how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.alive[id]
	delete(d.alive, id)
	r.how = how
	close(r.done)
}

// does sets what a release's programs do from now on, running ones included.
func (d *fakeDriver) does(release string, b behavior) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.program[release] = b
	for _, r := range d.alive {
		if r.release == release {
			r.behavior = b
		}
	}
}

type fakeRun struct {
	driver  *fakeDriver
	id      uint64
	release string
	behavior
	done    chan struct{}
	how     string
	cleared bool
}

func (r *fakeRun) PID() int     { return 1000 + int(r.id) }
func (r *fakeRun) Unit() string { return "" }
func (r *fakeRun) Addresses() map[string]net.Addr {
	return map[string]net.Addr{"http": &net.UnixAddr{Net: "unix", Name: strconv.FormatUint(r.id, 10)}}
}
func (r *fakeRun) Done() <-chan struct{}      { return r.done }
func (r *fakeRun) Exit() string               { return r.how }
func (r *fakeRun) LastLines() []string        { return r.lines }
func (r *fakeRun) Tells() bool                { return false }
func (r *fakeRun) Notices() <-chan Notice     { return nil }
func (r *fakeRun) Waiting(string) (int, bool) { return 0, false }

func (r *fakeRun) Misfit() string {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	why := r.driver.misfits[r.id]
	delete(r.driver.misfits, r.id)
	return why
}

func (r *fakeRun) Stranded() (string, bool) { return r.driver.apart[r.id], true }

func (r *fakeRun) Clear(_ context.Context, hurry bool) {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	r.cleared = true
	if hurry {
		r.driver.hurried = append(r.driver.hurried, r.id)
	}
}

func (r *fakeRun) Signal(s syscall.Signal) error {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	if r.driver.alive[r.id] == r && !r.ignoreTerm {
		delete(r.driver.alive, r.id)
		r.how = "its process was ended by " + s.String()
		close(r.done)
	}
	return nil
}

func (r *fakeRun) Kill() error {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	if r.driver.alive[r.id] == r {
		delete(r.driver.alive, r.id)
		r.how = "its process was killed"
		close(r.done)
	}
	return nil
}

func (r *fakeRun) Command(context.Context, []string) error {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	r.driver.checks++
	return r.unready
}
