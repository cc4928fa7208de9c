package systemd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// callLimit is for one call: systemd answers at once, or hangs.
	callLimit = 30 * time.Second
	retryMin  = 20 * time.Millisecond
	retryMax  = 2 * time.Second
)

// link keeps a connection to systemd: it makes a new one when one is lost, and
// tells those who watch a unit that it may have changed.
type link struct {
	dial func(context.Context) (bus, error)
	log  hclog.Logger

	mu       sync.Mutex
	conn     bus           // nil while there is none
	up       chan struct{} // closed once there is one
	watchers map[*watcher]bool

	over chan struct{} // closed when run has ended
}

// watcher is told that its unit may have changed. Its channel holds one token:
// what comes while it is full is told by it.
type watcher struct {
	unit string
	wake chan struct{}
}

func newLink(dial func(context.Context) (bus, error), log hclog.Logger) *link {
	return &link{dial: dial, log: log, up: make(chan struct{}), watchers: map[*watcher]bool{}, over: make(chan struct{})}
}

// run holds the connection, conn at first, until ctx ends; Driver.Close waits
// for it.
func (l *link) run(ctx context.Context, conn bus) {
	defer close(l.over)
	wait := retryMin
	for ctx.Err() == nil {
		if conn == nil {
			var err error
			if conn, err = l.dial(ctx); err != nil {
				if ctx.Err() == nil {
					l.log.Warn("cannot connect to systemd", "error", err, "again_in", wait)
				}
				select {
				case <-time.After(wait):
				case <-ctx.Done():
				}
				wait = min(2*wait, retryMax)
				continue
			}
			l.log.Info("connected to systemd again")
		}
		wait = retryMin
		l.set(conn)
		l.follow(ctx, conn)
		l.unset()
		conn.close()
		conn = nil
		if ctx.Err() == nil {
			l.log.Info("lost the connection to systemd")
		}
	}
	if conn != nil {
		conn.close()
	}
}

// follow wakes those whose units change until conn is lost or ctx ends.
func (l *link) follow(ctx context.Context, conn bus) {
	for {
		select {
		case name, ok := <-conn.changed():
			if !ok {
				return
			}
			l.tell(name)
		case <-ctx.Done():
			return
		}
	}
}

func (l *link) set(conn bus) {
	l.mu.Lock()
	l.conn = conn
	close(l.up)
	l.mu.Unlock()
	l.tell("") // whatever happened meanwhile was missed
}

func (l *link) unset() {
	l.mu.Lock()
	l.conn, l.up = nil, make(chan struct{})
	l.mu.Unlock()
}

// tell wakes the watchers of a unit; "" is all.
func (l *link) tell(unit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		if unit == "" || w.unit == unit {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}

// watch has a unit's changes told until unwatch.
func (l *link) watch(unit string) *watcher {
	w := &watcher{unit: unit, wake: make(chan struct{}, 1)}
	l.mu.Lock()
	l.watchers[w] = true
	l.mu.Unlock()
	return w
}

func (l *link) unwatch(w *watcher) {
	l.mu.Lock()
	delete(l.watchers, w)
	l.mu.Unlock()
}

// get gives the connection, and waits for one as long as ctx.
func (l *link) get(ctx context.Context) (bus, error) {
	for {
		l.mu.Lock()
		conn, up := l.conn, l.up
		l.mu.Unlock()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-up:
		case <-l.over:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errLost, ctx.Err())
		}
	}
}

// once makes one call on the connection of the moment. One that gives no answer
// is given up for a new one: it may be open and dead, as where a bus between
// hangs.
func (l *link) once(ctx context.Context, call func(context.Context, bus) error) error {
	conn, err := l.get(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = call(limited, conn)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		l.log.Warn("systemd gives no answer, connecting anew", "waited", callLimit)
		conn.close()
		return fmt.Errorf("%w: no answer within %s", errLost, callLimit)
	}
	return err
}

// again makes a call that may as well be done twice, until systemd has taken or
// refused it or ctx ends.
func (l *link) again(ctx context.Context, call func(context.Context, bus) error) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := l.once(ctx, call)
		if !errors.Is(err, errLost) && !errors.Is(err, errAway) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// read gives a unit's state.
func (l *link) read(ctx context.Context, unit string) (s state, err error) {
	err = l.again(ctx, func(ctx context.Context, b bus) error {
		p, err := b.properties(ctx, unit)
		if err == nil {
			s = stateOf(p)
		}
		return err
	})
	if err != nil {
		return s, fmt.Errorf("read unit %s: %w", unit, err)
	}
	return s, nil
}
