package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Dial connects to a generation on a listener, whether or not new connections
// go there. It is an error where the connection came to another.
func (d *Direct) Dial(ctx context.Context, generation uint64, listener string) (net.Conn, error) {
	g, member, err := d.find(generation, listener)
	if err != nil {
		return nil, fmt.Errorf("dial generation %d: %w", generation, err)
	}
	conn, err := g.dial(ctx, member)
	if err != nil {
		return nil, fmt.Errorf("dial generation %d: %w", generation, err)
	}
	if at, err := g.ask(conn); err != nil || at != untold && at != member {
		conn.Close()
		return nil, fmt.Errorf("dial generation %d: it came to member %d, not to %d: %w", generation, at, member, errors.Join(err, ErrGroup))
	}
	return conn, nil
}

// ask is cameTo with a diag of its own.
func (g *group) ask(conn net.Conn) (int, error) {
	diag, err := openDiag()
	if err != nil {
		return untold, err
	}
	defer diag.close()
	return g.cameTo(diag, conn)
}

// Waiting counts the connections in the queue of a generation's listener.
func (d *Direct) Waiting(generation uint64, listener string) (int, error) {
	g, member, err := d.find(generation, listener)
	if err != nil {
		return 0, err
	}
	n, _, err := queueOf(g.fds[member])
	return n, err
}

func (d *Direct) find(generation uint64, listener string) (*group, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		return nil, 0, ErrNoMember
	}
	for _, g := range d.groups {
		if g.name == listener {
			return g, t.member, nil
		}
	}
	return nil, 0, fmt.Errorf("listener %q: %w", listener, ErrNoAddress)
}

// Names gives the name of each group's listener, in the order of the
// descriptors that Lend gives.
func (d *Direct) Names() []string {
	var names []string
	for _, g := range d.groups {
		names = append(names, g.name)
	}
	return names
}

// Reach gives the address at which a listener is reached from this machine.
func (d *Direct) Reach(listener string) *net.TCPAddr {
	for _, g := range d.groups {
		if g.name == listener {
			return g.reach()
		}
	}
	return nil
}
