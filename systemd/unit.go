package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// clearGrace is what Clear leaves a unit to end by its own rules.
const clearGrace = 5 * time.Second

// Unit is one run of a generation's unit. A goroutine watches it until it has
// ended or the Driver is closed.
type Unit struct {
	driver *Driver
	name   string
	w      *watcher
	before state         // of the run before, as far as systemd remembers it
	since  time.Time     // its start, or not long before it
	job    <-chan string // result of the start job; nil where none is known

	begun   chan struct{} // closed when there is a main process, or can be none
	ready   chan struct{} // closed when systemd calls it active
	done    chan struct{} // closed when the main process has ended
	watched chan struct{} // closed when nobody watches it any more
	said    chan struct{} // holds a token when the status text has changed

	mu         sync.Mutex
	invocation string
	kind       string // Type= of the unit
	last       state
	result     string // of the start job
	exit       string
	left       []int // processes that outlast it
}

// claim makes name ours, so that no two of our runs share a unit.
func (d *Driver) claim(name string) (*Unit, error) {
	u := &Unit{
		driver: d, name: name,
		begun: make(chan struct{}), ready: make(chan struct{}),
		done: make(chan struct{}), watched: make(chan struct{}), said: make(chan struct{}, 1),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() != nil {
		return nil, ErrClosed
	}
	if d.units[name] != nil || d.left[name] {
		return nil, ErrRunning
	}
	d.units[name] = u
	u.w = d.link.watch(name)
	d.running.Add(1)
	return u, nil
}

// drop undoes claim.
func (u *Unit) drop() {
	d := u.driver
	d.link.unwatch(u.w)
	d.mu.Lock()
	delete(d.units, u.name)
	d.mu.Unlock()
	close(u.watched)
	d.running.Done()
}

// watch reads the unit whenever it may have changed, until it has ended or the
// Driver is closed; Driver.Close waits for it.
func (u *Unit) watch() {
	defer u.drop()
	d := u.driver
	poll := time.NewTicker(d.config.Poll)
	defer poll.Stop()
	job := u.job
	for {
		s, err := d.link.read(d.life, u.name)
		switch {
		case d.life.Err() != nil:
			return
		case err != nil:
			d.config.Log.Warn("cannot read a unit", "unit", u.name, "error", err)
		case u.over(s) && d.goesDown():
			// It ends because everything does, which says nothing of it.
		default:
			if job != nil && u.unexplained(s) {
				job = u.hear(job)
			}
			u.observe(s)
		}
		select {
		case <-u.done:
			return
		default:
		}
		select {
		case <-u.w.wake:
		case <-poll.C:
		case r := <-job:
			job = nil // it tells once
			u.heard(r)
		case <-d.life.Done():
			return
		}
	}
}

// over tells whether s is the end of this run, as observe would take it.
func (u *Unit) over(s state) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.invocation != "" && (s.invocation != u.invocation || !s.running() || s.remains() || s.active == "deactivating" && s.mainPID == 0)
}

// goesDown tells whether the whole system is being stopped.
func (d *Driver) goesDown() bool {
	var now string
	err := d.link.again(d.life, func(ctx context.Context, b bus) (err error) {
		now, err = b.systemState(ctx)
		return err
	})
	return err == nil && now == "stopping"
}

// observe takes in what the unit's state is now.
func (u *Unit) observe(s state) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if closed(u.done) {
		return
	}
	if s.kind != "" {
		u.kind = s.kind
	}
	if s.statusText != u.last.statusText {
		select {
		case u.said <- struct{}{}:
		default:
		}
	}
	if u.invocation == "" && s.invocation != u.before.invocation {
		u.invocation = s.invocation
	}
	if s.mainStart == u.before.mainStart {
		s.exited = false // it is how the run before ended
	}
	ours := u.invocation != "" && s.invocation == u.invocation
	switch {
	case u.invocation == "":
		// It waits for its job, or ran and was forgotten, or never ran.
		if s.running() || s.job {
			return
		}
	case ours && s.remains():
	case ours && s.sub != "auto-restart" && (s.active == "active" || s.active == "reloading"):
		u.last = s
		shut(u.ready)
		shut(u.begun)
		return
	case ours && s.active == "activating" && s.sub != "auto-restart":
		u.last = s
		if s.mainPID != 0 {
			shut(u.begun)
		}
		return
	case ours && s.active == "deactivating" && s.mainPID != 0:
		u.last = s
		shut(u.begun)
		return
	}
	switch {
	case u.invocation == "":
		u.exit = notRun(s, u.result)
	case !ours && s.invocation != "":
		u.exit = "its unit was started anew by somebody else"
	case !ours && !closed(u.begun):
		u.exit = notRun(s, u.result) // skipped by ExecCondition=, perhaps
	case !ours:
		// systemd forgets at once what ended without an error.
		u.exit = "its process ended, and systemd saw no error in it"
	default:
		u.exit = ended(s)
	}
	u.last.mainPID = 0
	close(u.done)
	shut(u.begun)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// shut closes c if it is open. Its caller holds the lock.
func shut(c chan struct{}) {
	if !closed(c) {
		close(c)
	}
}

// Name is the unit's name.
func (u *Unit) Name() string { return u.name }

// Identity finds this run again.
func (u *Unit) Identity() Identity {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Identity{Unit: u.name, Invocation: u.invocation}
}

// PID is the main process's number, 0 while there is none. A program may change
// it (MAINPID= in sd_notify(3)).
func (u *Unit) PID() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last.mainPID
}

// Said holds a token after Status has changed.
func (u *Unit) Said() <-chan struct{} { return u.said }

// Unwatched is closed when nobody looks after the unit any more: it has ended, or
// the Driver is closed.
func (u *Unit) Unwatched() <-chan struct{} { return u.watched }

// Status is what the program last said of itself by STATUS=.
func (u *Unit) Status() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last.statusText
}

// Tells says whether the program itself decides when its unit is active
// (systemd.service(5), Type=): then Ready proves it ready. Otherwise it only says
// that there is a process.
func (u *Unit) Tells() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.kind {
	case "notify", "notify-reload", "dbus", "forking":
		return true
	}
	return false
}

// Ready is closed when systemd calls the unit active: under Type=notify when the
// program said READY=1, under Type=exec when it was executed.
func (u *Unit) Ready() <-chan struct{} { return u.ready }

// Done is closed when the main process has ended. Then Exit tells how.
func (u *Unit) Done() <-chan struct{} { return u.done }

// Exit says how the main process ended, or why there was none; "" before.
func (u *Unit) Exit() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.exit
}

// Owns tells whether a process is in the unit's control group. The answer is
// good from the first instruction of the unit's first process on. Whoever asks
// must know that pid is still the process it means (it holds its socket, say).
func (u *Unit) Owns(pid int) bool {
	name, err := unitOf(pid, u.driver.config.User)
	return err == nil && name == u.name
}

// Stop has systemd stop the unit by its own rules: ExecStop=, KillSignal=,
// TimeoutStopSec= and then KILL. It does not wait: see Done.
func (u *Unit) Stop() error {
	if closed(u.done) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return u.driver.stop(ctx, u.name)
}

// Signal sends a signal to the main process. systemd does not know then that it
// is to end, and goes by the unit's Restart=.
func (u *Unit) Signal(s syscall.Signal) error {
	if closed(u.done) {
		return fmt.Errorf("signal unit %s: %w", u.name, ErrGone)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	// Not again and again: a signal that arrives twice may mean something else.
	err := u.driver.link.once(ctx, func(ctx context.Context, b bus) error { return b.kill(ctx, u.name, "main", int32(s)) })
	if errors.Is(err, errNoUnit) {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("signal unit %s: %w", u.name, err)
	}
	return nil
}

// Kill ends all processes of the unit at once. It does not wait: see Done.
func (u *Unit) Kill() error {
	if u.replaced() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	// The stop comes first, so that Restart= does not hold.
	if err := u.driver.stop(ctx, u.name); err != nil {
		return err
	}
	return u.driver.kill(ctx, u.name)
}

// Clear has systemd stop what is left of the unit, by the unit's own rules for
// some seconds and then with KILL, and forget that it failed. It returns when
// nothing of it runs, also nothing that outlasts it, or ctx ends. The unit is not
// ours any more then, so that the same generation can be started again.
func (u *Unit) Clear(ctx context.Context) error { return u.clear(ctx, clearGrace) }

// Finish is Clear that leaves the unit all the time that its own rules give it
// (TimeoutStopSec=), for ExecStopPost= and for what the main process left.
func (u *Unit) Finish(ctx context.Context) error { return u.clear(ctx, byItsRules) }

func (u *Unit) clear(ctx context.Context, grace time.Duration) error {
	if u.replaced() {
		return nil
	}
	if err := u.driver.finish(ctx, u.name, grace, u.leave); err != nil {
		return err
	}
	select {
	case <-u.watched: // it has seen the end by itself
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end unit %s: %w", u.name, ctx.Err())
	}
}

// replaced tells whether the unit's name is a later run's by now, which must not
// be hit by what was meant for this one.
func (u *Unit) replaced() bool {
	u.driver.mu.Lock()
	defer u.driver.mu.Unlock()
	now := u.driver.units[u.name]
	return now != nil && now != u
}

// LastLines are the last lines of this run in the journal, the program's and
// systemd's of it, clean of control bytes. journald may be behind, so reading
// them takes some tenths of a second.
func (u *Unit) LastLines() []string { return u.driver.journal(u.name, u.since) }
