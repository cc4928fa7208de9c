package proxy

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Before anybody has steered a group the kernel spreads clients over all of its
// members. Those that came before the first proxyd, or while systemd alone held
// the sockets, so wait in every queue, and every handshake that is under way may
// end at any member. The first generation is to have a member all the same: else
// it would be relayed, and its program started once more for the direct path.
//
// So the relay takes the clients out of one queue, the shortest, and keeps them
// until a route is switched in, as it does with every client that it has taken
// when there is none. The generation gets none of them before it is proven ready.
// They are the relay's from then on, and end with it; those in the other queues
// are not touched before there is a route.

// unrouted says that nobody takes clients, though they are not held, and how many
// there is room for.
func (p *Proxy) unrouted() (room int64, yes bool) {
	return p.limit - p.live.Load(), p.route.Load() == nil && !p.held.Load()
}

// cold says that no generation has a member, and none was ever served. mu is held.
func (d *Direct) cold() bool {
	for _, m := range d.members {
		if m.generation != 0 {
			return false
		}
	}
	return !d.proxy.served.Load()
}

// reserveQueued picks the member that the fewest clients wait at, where nobody
// takes them, for takeQueue; else it gives none. At a cold start it may be one
// that a handshake may still come to: its client is for whoever serves first, and
// to wait for it could take a minute.
func (d *Direct) reserveQueued(generation uint64, none error) (member int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	room, unrouted := d.proxy.unrouted()
	if !unrouted {
		return 0, none
	}
	cold, least := d.cold(), 0
	for m := 1; m < len(d.members); m++ {
		l := &d.members[m]
		if l.generation != 0 || d.spare(m) || l.back != nil || len(l.late) > 0 && !cold {
			continue
		}
		n, err := d.queued(m)
		if err == nil && int64(n) <= room && (member == 0 || n < least) {
			member, least = m, n
		}
	}
	if member == 0 {
		return 0, none
	}
	d.members[member].generation = generation
	return member, nil
}

// takeQueue has the relay take what waits in the queues of a member that is
// reserved, and that nobody else accepts from.
func (d *Direct) takeQueue(member int) {
	for _, g := range d.groups {
		for {
			fd, _, err := unix.Accept4(g.fds[member], unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				break // empty, or no descriptor is left: Lend looks at what still waits
			}
			d.proxy.TakeOver(fd, g.fds[hold])
		}
	}
}
