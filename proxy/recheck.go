package proxy

import (
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
// A switch replaces a program, what is lent, kept or given back stays open, and no
// member is added or closed. But a generation's program can change the indexes: it takes
// its member out of the group with shutdown(2), which is followed (shut.go), and puts it
// back, at the end, with listen(2), maybe within so short a time that nobody notices. It has one from Lend to
// Return, and from one start to the next. A socket that it opens at the address
// itself changes no index when it comes or goes, see strangers.go.

// recheckPause is the least between two checks.
const recheckPause = time.Second

// Recheck has the places of all members compared with the kernel's soon.
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
		g.mu.Lock()
		before := g.places
		g.mu.Unlock()
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
		d.putRight(g, before, now.members)
	}
}

// putRight compares the members of a group, as the kernel lists them now, with what is
// known. One that is missing was shut down, and is dealt with as such (shut.go). One
// that has left and come back by itself is in another place, so the places of all are
// found by trying. counting is held.
func (d *Direct) putRight(g *group, before, now []int) {
	d.mu.Lock()
	d.noticeDown()
	d.mu.Unlock()
	g.mu.Lock()
	if len(before) > 0 && &before[0] != &g.places[0] { // meanwhile
		g.mu.Unlock()
		d.Recheck()
		return
	}
	known := slices.DeleteFunc(slices.Clone(g.places), func(m int) bool { return !slices.Contains(now, m) })
	moved := !slices.Equal(known, slices.DeleteFunc(slices.Clone(now), func(m int) bool { return !slices.Contains(known, m) }))
	if moved && len(now) == len(g.fds) {
		g.places = now
	}
	g.mu.Unlock()
	if !moved {
		return
	}
	d.log.Warn("members have left their group and come back in another place", "listener", g.name, "address", g.addr)
	d.mu.Lock()
	d.jumbled = true
	d.mu.Unlock()
	d.wakeFollow()
}
