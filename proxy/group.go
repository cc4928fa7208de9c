package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Group is the members of one address: TCP sockets that listen there with
// SO_REUSEPORT, in the order in which they began to. The first is the hold
// member, which no generation gets; the relay accepts from it.
type Group struct {
	Name    string // of the listener; several groups may have the same
	Address *net.TCPAddr
	Members []int // borrowed
}

// leastMembers: one to hold, one that serves, one for the next generation.
const leastMembers = 3

func newGroup(c Group) (*group, error) {
	if n := len(c.Members); n < leastMembers || n > mostMembers {
		return nil, fmt.Errorf("%w: %d members, it takes %d to %d", ErrGroup, n, leastMembers, mostMembers)
	}
	g := &group{name: c.Name, addr: c.Address, fds: c.Members, to: -1}
	for i, fd := range c.Members {
		for _, want := range []struct{ opt, value int }{
			{unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_REUSEPORT, 1},
		} {
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.opt)
			if err != nil || n != want.value {
				return nil, fmt.Errorf("%w: descriptor %d does not listen, or without SO_REUSEPORT", ErrGroup, fd)
			}
		}
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || family != unix.AF_INET && family != unix.AF_INET6 || i > 0 && family != g.family {
			return nil, fmt.Errorf("%w: descriptor %d is not TCP, or of another family", ErrGroup, fd)
		}
		g.family = family
		if isListening(fd) {
			g.order = append(g.order, i)
		}
	}
	for i := range g.fds { // shut down while nobody looked
		if err := g.listenAgain(i); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrGroup, err)
		}
	}
	if g.family == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(c.Members[0], unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		g.dual = err == nil && only == 0
	}
	return g, nil
}

// alone tags the members, and makes sure that the tags can be read back and that
// the group has no members but the known ones: the kernel counts the others as
// well, and an index would name one of them. Where it was ours alone before, others
// are behind ours, see strangers.go.
func (d *Direct) alone(g *group, before bool) error {
	for i, fd := range g.fds {
		if err := tag(fd, i); err != nil {
			return err
		}
	}
	known, err := g.cookies()
	if err != nil {
		return err
	}
	now, err := g.listening(d.diag, known)
	if err == nil && len(known) != len(g.fds) {
		err = fmt.Errorf("%w: the same socket is there twice", ErrGroup)
	}
	if err == nil && len(now.strangers) > 0 && !before {
		err = fmt.Errorf("%w: %d sockets of somebody else listen there as well", ErrGroup, len(now.strangers))
	}
	if err == nil && now.wrong > 0 {
		err = fmt.Errorf("%w: %w", ErrGroup, errUntold)
	}
	if err != nil {
		return fmt.Errorf("steer listener %q at %s: %w", g.name, g.addr, err)
	}
	g.places = now.members
	d.tellStrangers(g, now.strangers)
	return nil
}

// checkAll compares the index of each member with the kernel's. One that is a
// generation's gets a connection that is closed at once, but where its queue has
// no room for it: the connect would wait until the generation accepts. Where
// clients wait in a free one it is left until it is lent. An error that is not
// ErrGroup keeps no other member from being checked.
func (d *Direct) checkAll() error {
	diag, err := openDiag()
	if err != nil {
		return err
	}
	defer diag.close()
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	var unsure error
	for m := 1; m < len(d.members); m++ {
		for _, g := range d.groups {
			n, room, err := queueOf(g.fds[m])
			switch lent := d.members[m].generation != 0; {
			case err != nil:
			case lent && n < room/2: // what comes in meanwhile has room as well
				err = g.checkLent(ctx, diag, m)
			case !lent && n == 0:
				err = g.check(ctx, m, func(fd int) { d.proxy.TakeOver(fd, g.fds[hold]) })
			}
			if errors.Is(err, ErrGroup) {
				return err
			}
			unsure = errors.Join(unsure, err)
		}
	}
	return unsure
}
