package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Identity is what finds a unit's run again. It is durable: JSON.
type Identity struct {
	Unit string `json:"unit"`
	// Invocation is systemd's invocation id (systemd.exec(5), $INVOCATION_ID), 32
	// hex digits; "" before it is known.
	Invocation string `json:"invocation,omitempty"`
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
	runs := s.running()
	if !runs {
		if runs, err = d.outlasted(ctx, id.Unit, s); err != nil {
			return state{}, fmt.Errorf("adopt: %w", err)
		}
	}
	if !runs || !id.is(s) {
		return state{}, fmt.Errorf("adopt unit %s: %w", id.Unit, ErrGone)
	}
	return s, nil
}

// is tells whether a unit's state is that of a run that was recorded.
func (id Identity) is(s state) bool {
	return s.invocation != "" && (id.Invocation == "" || s.invocation == id.Invocation)
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
	s := stateOf(p)
	runs := s.running()
	if !runs && s.active != "" {
		left, err := b.processes(ctx, id.Unit)
		if err != nil && !errors.Is(err, errNoUnit) {
			return fmt.Errorf("list processes of unit %s: %w", id.Unit, err)
		}
		runs = len(left) > 0
	}
	if !runs || !id.is(s) {
		return fmt.Errorf("unit %s: %w", id.Unit, ErrGone)
	}
	return nil
}

// Adopt takes over a unit that was started before, or gives ErrGone. With no
// invocation known, what runs in the unit is taken. A run is taken as well whose main
// process has ended and others have not: Done is closed then, and Clear ends it.
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
	Left       bool // its main process has ended, others have not
}

// Found lists the generations whose units run, or have processes that outlast them.
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
		runs := s.running()
		if !runs {
			if runs, err = d.outlasted(ctx, name, s); err != nil {
				return nil, err
			}
		}
		if runs {
			found = append(found, Found{generation, release, Identity{name, s.invocation}, !s.running()})
		}
	}
	return found, nil
}
