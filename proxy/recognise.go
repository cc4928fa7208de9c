package proxy

import (
	"context"
	"net"
	"slices"
)

// Steering belongs to the sockets, so generations that are kept from before still
// get their clients as an earlier Direct left it. Before it is put in force once
// more it is looked at: a connection that is aimed nowhere says where new ones go.
// What is found as it was left is recognised, and clients then notice nothing: the
// kernel replaces a program by the same one in one step. Where it is another it is
// said, for clients went elsewhere meanwhile.

// recognise says whether new connections go to a member already, where generations
// are kept from before; else there is nothing to recognise. It gives where they go, by
// group. What cannot be found out, as where a queue has no room for the connection, is
// untold. mu is held.
func (d *Direct) recognise(to int) (found []int) {
	for range d.groups {
		found = append(found, untold)
	}
	if !slices.ContainsFunc(d.members, func(m lending) bool { return m.generation != 0 }) {
		return found
	}
	diag, err := openDiag()
	if err != nil {
		return found
	}
	defer diag.close()
	for i, g := range d.groups {
		at, err := g.goesTo(diag)
		if err == nil {
			found[i] = at
		}
		switch {
		case err != nil || at == untold:
			d.log.Debug("cannot find out where new connections go", "listener", g.name, "address", g.addr, "error", err)
		case at == to:
			d.log.Info("new connections go where they went before", "listener", g.name, "address", g.addr, "member", to)
		default:
			d.log.Warn("new connections went elsewhere than was left, and are steered anew",
				"listener", g.name, "address", g.addr, "went", at, "member", to)
		}
	}
	return found
}

// goesTo gives the member that new connections go to, or untold. The one that finds
// out is closed at once.
func (g *group) goesTo(diag *diag) (member int, err error) {
	for _, fd := range g.fds {
		if n, room, err := queueOf(fd); err != nil || n >= room/2 {
			return untold, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), arriveTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.reach().String())
	if err != nil {
		return untold, err
	}
	defer conn.Close()
	return g.cameTo(diag, conn)
}
