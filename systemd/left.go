package systemd

import (
	"context"
	"time"
)

// LeftError is a start that failed while something of the unit may still run, for
// systemd could not be asked, or did not permit it. The Driver goes on ending it.
// What the unit uses must be left to it until Gone is closed, which it is when
// systemd was read to have nothing of it; it is not when the Driver is closed before.
// Until then the unit cannot be started (ErrRunning).
type LeftError struct {
	Unit string
	Err  error
	Gone <-chan struct{}
}

func (e *LeftError) Error() string { return e.Err.Error() }
func (e *LeftError) Unwrap() error { return e.Err }

// Abandon ends a unit that was started and is not wanted, for why, at once. It gives
// why, or a *LeftError of it, whatever became of ctx.
func (u *Unit) Abandon(ctx context.Context, why error) error {
	if u.replaced() { // it has ended by itself
		return why
	}
	return u.driver.giveUp(ctx, u, why)
}

// Between two tries to end what is left of a unit.
const (
	leftMin = time.Second
	leftMax = time.Minute
)

// endLater has what may be left of u ended in the background, and gives the error
// that says so. u is still claimed, and nobody can claim the unit's name before it
// has ended.
func (d *Driver) endLater(u *Unit, err error) error {
	gone := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life.Err() == nil {
		d.left[u.name] = true
		d.running.Add(1)
		go d.endLeft(u, gone)
	}
	return &LeftError{Unit: u.name, Err: err, Gone: gone}
}

// endLeft closes gone when nothing of u runs. It ends with that or with the
// Driver; Close waits for it.
func (d *Driver) endLeft(u *Unit, gone chan<- struct{}) {
	defer d.running.Done()
	told := ""
	for wait := leftMin; ; wait = min(2*wait, leftMax) {
		err := d.finish(d.life, u.name, 0, nil)
		if err == nil {
			select {
			case <-u.watched: // it has seen the end by itself
				d.mu.Lock()
				delete(d.left, u.name)
				d.mu.Unlock()
				close(gone)
			case <-d.life.Done():
			}
			return
		}
		if err.Error() != told && d.life.Err() == nil {
			told = err.Error()
			d.config.Log.Warn("cannot end what is left of a unit, trying on", "unit", u.name, "error", err)
		}
		select {
		case <-time.After(wait):
		case <-d.life.Done():
			return
		}
	}
}
