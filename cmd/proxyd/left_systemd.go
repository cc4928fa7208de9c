package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed8fae2174/proxyd/systemd"
)

// leftover is what may run of a generation though it has no run any more, for
// systemd could not be asked: see systemd.LeftError.
type leftover struct {
	gone     []<-chan struct{}
	released bool          // Release was asked for
	over     chan struct{} // closed when that is done
}

// keepLeft remembers what an error says is left of a generation.
func (d *systemdDriver) keepLeft(id uint64, err error) {
	var left *systemd.LeftError
	if !errors.As(err, &left) {
		return
	}
	d.log.Warn("something of a generation may run on: it is ended as soon as systemd can be asked",
		"generation", id, "unit", left.Unit, "error", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left[id] == nil {
		d.left[id] = &leftover{over: make(chan struct{})}
	}
	d.left[id].gone = append(d.left[id].gone, left.Gone)
}

// awaitLeft waits until nothing is left of a generation that is started again.
func (d *systemdDriver) awaitLeft(ctx context.Context, id uint64) error {
	d.mu.Lock()
	left := d.left[id]
	d.mu.Unlock()
	if left == nil {
		return nil
	}
	gone := d.goneOf(left)
	err := fmt.Errorf("what may be left of the last run of generation %d has not ended yet", id)
	for _, gone := range gone {
		select {
		case <-gone:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
	d.mu.Lock()
	if !left.released {
		delete(d.left, id)
	}
	released := left.released
	d.mu.Unlock()
	if released {
		select {
		case <-left.over:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
	return nil
}

func (d *systemdDriver) goneOf(l *leftover) []<-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(l.gone)
}

// releaseLeft releases a generation once nothing is left of it. It ends with that
// or with the driver, which leaves the rest to the next proxyd; close waits for it.
func (d *systemdDriver) releaseLeft(id uint64, left *leftover) {
	defer d.calls.Done()
	for _, gone := range d.goneOf(left) {
		select {
		case <-gone:
		case <-d.ending:
			return
		}
	}
	d.log.Info("nothing is left of a generation", "generation", id)
	d.sockets.release(id)
	d.mu.Lock()
	delete(d.left, id)
	d.mu.Unlock()
	close(left.over)
}
