package proxy

import (
	"fmt"
	"slices"
	"time"
)

// The indexes of members are kept as numbers here, and the kernel has its own. They
// are compared by connections that are aimed at members: by begin, for all, and by
// Lend for the one that it lends. From then on they are read back after every change
// without a connection, so that no generation is bothered: the kernel lists the
// sockets that listen at a port in the order in which they began to, or in the
// reverse (inet_hash in net/ipv4/inet_hashtables.c, inet_diag_dump_icsk in
// net/ipv4/inet_diag.c). An index changes only when a member leaves the group, as the
// last one takes its place, and whoever comes back stands at the end: so as long as
// all members stand in the list as at first, each has the index that it had.
//
// What is done here leaves the indexes as they are: a switch replaces a program,
// what is lent, kept or given back stays open, and no member is added or closed. But
// a generation's program can change them: it takes its member out of the group with
// shutdown(2), and puts it back, at the end, with listen(2). It has one from Lend to
// Return, and from one start to the next. A socket that it opens at the address
// itself changes no index when it comes or goes, see strangers.go.

// recheckPause is the least between two checks.
const recheckPause = time.Second

// Recheck has the places of all members compared with the kernel's soon. What finds
// a difference says so, and keeps every generation that comes on the relay.
func (d *Direct) Recheck() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsure = true
	d.wake()
}

// changed tells whether something happened since the last recheck that may have gone
// before a change of places, or the coming or going of a stranger: a switch, a member
// that was lent or came back, a program's start. A program does with its sockets what
// it does after one of these, and before the next.
func (d *Direct) changed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unsure && !d.former
}

// recheck compares the places of all members, and tells of strangers that came and
// went. Where it cannot, it is due again. It is called by watch.
func (d *Direct) recheck() {
	d.counting.Lock()
	defer d.counting.Unlock()
	d.mu.Lock()
	d.unsure = false
	d.mu.Unlock()
	for _, g := range d.groups {
		known, err := g.cookies()
		var now listening
		if err == nil {
			now, err = g.listening(d.diag, known)
		}
		if err != nil {
			d.log.Warn("cannot check the members of a group, trying again", "listener", g.name, "address", g.addr, "error", err)
			d.mu.Lock()
			d.unsure = true
			d.mu.Unlock()
			return
		}
		d.tellStrangers(g, now.strangers)
		if wrong := d.misplaced(g, now.members); wrong != nil {
			d.mu.Lock()
			if d.broken == nil {
				d.broken = wrong
				d.log.Error("the direct path is not used for new generations", "error", wrong)
			}
			d.mu.Unlock()
		}
	}
}

// misplaced says what is wrong with the members of a group, as the kernel lists them
// now; nil: nothing.
func (d *Direct) misplaced(g *group, now []int) error {
	if slices.Equal(now, g.places) {
		return nil
	}
	at := fmt.Sprintf("check the members of listener %q at %s", g.name, g.addr)
	for m := range g.fds {
		if !slices.Contains(now, m) {
			return fmt.Errorf("%s: %w: %s has left it", at, ErrGroup, d.nameOf(m))
		}
	}
	for m := range g.fds {
		without := func(list []int) []int {
			return slices.DeleteFunc(slices.Clone(list), func(x int) bool { return x == m })
		}
		if slices.Equal(without(now), without(g.places)) {
			return fmt.Errorf("%s: %w: %s has left it and come back in another place", at, ErrGroup, d.nameOf(m))
		}
	}
	return fmt.Errorf("%s: %w: its members stand in another order", at, ErrGroup)
}

// nameOf names a member for a person.
func (d *Direct) nameOf(member int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch m := d.members[member]; {
	case m.generation != 0:
		return fmt.Sprintf("member %d, generation %d's,", member, m.generation)
	case m.last != 0:
		return fmt.Sprintf("member %d, generation %d's before,", member, m.last)
	}
	return fmt.Sprintf("member %d, nobody's,", member)
}
