package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Where the order of members is not known any more (see shut.go), or the relay has met
// itself (astray.go), connections tell: one is aimed at each index, and the kernel says
// to which member it came.

// proveTime bounds the connect to one index, which may lead to a full queue.
const proveTime = 200 * time.Millisecond

// prove tries where each index leads, as several members may have left in any order,
// and steers by what it finds. The relay takes nobody meanwhile, as it changes the tag
// of what it takes.
func (d *Direct) prove() error {
	return d.whileProving(func(diag *diag) (err error) {
		for _, g := range d.groups {
			err = errors.Join(err, g.prove(diag))
		}
		return err
	})
}

// whileProving does what the relay must take nobody during, nor another of its kind.
func (d *Direct) whileProving(do func(diag *diag) error) error {
	d.proving.Lock()
	defer d.proving.Unlock()
	d.proxy.bar(barProving, true)
	defer d.proxy.bar(barProving, false)
	diag, err := openDiag()
	if err != nil {
		return err
	}
	defer diag.close()
	return do(diag)
}

// leadsRight says whether a new connection comes to the member that is steered to,
// in every group. Where the kernel does not tell it is taken for right.
func (d *Direct) leadsRight() bool {
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	err := d.whileProving(func(diag *diag) error {
		for _, g := range d.groups {
			if at, err := g.goesTo(diag); err == nil && to >= 0 && at != untold && at != to {
				d.log.Warn("new connections go to another member than they are steered to", "listener", g.name, "member", at)
				return ErrGroup
			}
		}
		return nil
	})
	return err == nil
}

// proveTries is how often the order is tried while it changes under the try.
const proveTries = 5

// stranger stands in the order for a socket of somebody else, see strangers.go.
const stranger = -2

// prove finds out which member each index leads to. Where an index tells nothing,
// as one does whose queue is full, the order that was thought of stays. It is an error
// where somebody else's socket is before one of ours: nobody tells when that is closed,
// and the last of ours moved.
func (g *group) prove(diag *diag) error {
	for range proveTries {
		g.mu.Lock()
		before := g.order
		g.mu.Unlock()
		all := 0
		err := diag.each(g.family, g.addr.Port, 1<<tcpListen, func(s *socketSeen) {
			if s.local() == g.listens() {
				all++
			}
		})
		if err != nil {
			return err
		}
		found, err := g.leadTo(diag, all)
		if err != nil {
			return err
		}
		g.mu.Lock()
		if len(before) != len(g.order) || len(before) > 0 && &before[0] != &g.order[0] {
			g.mu.Unlock()
			continue
		}
		if order := merge(before, found); !slices.Equal(order, before) {
			g.order = order
			err = g.steerAnew()
		}
		if i := slices.Index(g.order, stranger); i >= 0 && i < len(g.order)-1 {
			err = errors.Join(err, fmt.Errorf("find order of listener %q at %s: %w: a socket of somebody else is at index %d", g.name, g.addr, ErrGroup, i))
		}
		g.mu.Unlock()
		return err
	}
	return fmt.Errorf("find order of listener %q at %s: it changes all the time", g.name, g.addr)
}

// leadTo tries every index. Meanwhile the hold member has a tag of its own, where
// there is one left: its usual one is what sockets of others have.
func (g *group) leadTo(diag *diag, indexes int) (found []int, err error) {
	if len(g.fds) < mostMembers {
		if err := tag(g.fds[hold], apartTag); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, tag(g.fds[hold], hold)) }()
	}
	for i := range indexes {
		found = append(found, g.leadsTo(diag, i))
	}
	return found, nil
}

// merge puts what was found in place of what was thought; untold is not known. Who
// is not found anywhere is where nothing is known. Those of others that are behind all
// of ours are left out.
func merge(thought, found []int) []int {
	var order, left []int
	for _, m := range thought {
		if m != stranger && !slices.Contains(found, m) {
			left = append(left, m)
		}
	}
	for i, m := range found {
		if m == untold && i < len(thought) { // as it was thought, if that can be
			if at := slices.Index(left, thought[i]); at >= 0 {
				m, left = thought[i], slices.Delete(left, at, at+1)
			}
		}
		order = append(order, m)
	}
	for i, m := range order {
		if m == untold && len(left) > 0 {
			order[i], left = left[0], left[1:]
		} else if m == untold {
			order[i] = stranger
		}
	}
	for len(order) > 0 && order[len(order)-1] == stranger {
		order = order[:len(order)-1]
	}
	return order
}

// leadsTo gives the member that an index leads to, or stranger; untold where that is
// not known.
func (g *group) leadsTo(diag *diag, index int) int {
	ctx, cancel := context.WithTimeout(context.Background(), proveTime)
	defer cancel()
	conn, err := g.dialAt(ctx, func() int { return index })
	if err != nil {
		return untold
	}
	defer conn.Close()
	told, err := g.peerTag(diag, conn)
	if err != nil || told == untold {
		return untold
	}
	at, err := g.cameTo(diag, conn)
	switch {
	case err != nil:
		return untold
	case at == untold:
		return stranger
	}
	return at
}
