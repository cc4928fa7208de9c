package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
)

// tally counts one generation's connections, as nobody in this process sees
// them come and go: those of its member's tag that a process has open or that
// wait in its queue. A connection that its process has closed is not one of
// them: the kernel ends it, whatever becomes of the process.
//
// A handshake carries no tag yet. So those that were under way when the
// generation was steered away from are remembered one by one, and it has not
// drained before each is over: it then has a tag, or is gone.
type tally struct {
	generation uint64
	member     int
	left       uint64        // turn at which it was steered away from; 0: new connections go to it; or never
	waiter     *waiter       // nil: nobody waits for it to have drained
	counted    atomic.Uint64 // at the last look

	// Below: guarded by Direct.counting.
	since      uint64                // left, when what follows was begun
	looks      int                   // since then
	handshakes map[uint64]socketSeen // by cookie
	open       map[uint64]socketSeen // at the last look
	also       []int                 // other tags that its connections have
	spoiled    bool                  // some of its connections may have another's tag
}

// readTags finds out whether the generation's program has changed its tag, and gives
// it back. What it accepted meanwhile has the other one: that counts as well, where it
// is no other member's. Else nobody knows how many there are, and the generation has
// not drained before its deadline. counting is held.
func (d *Direct) readTags(t *tally) {
	for _, g := range d.groups {
		if d.former || t.member >= len(g.fds) {
			return
		}
		fd := g.fds[t.member]
		told := readTag(fd)
		if told == untold || told&int(d.diag.tag) == t.member {
			continue
		}
		told &= int(d.diag.tag)
		known := t.has(int8(told)) || t.spoiled
		if told >= len(d.members) {
			t.also = append(slices.DeleteFunc(t.also, func(tag int) bool { return tag == told }), told)
		} else {
			t.spoiled = true
		}
		tell := d.log.Warn
		if known { // it changes them again and again
			tell = d.log.Debug
		}
		tell("a program has changed options by which its connections are counted", "generation", t.generation, "listener", g.name, "exact", !t.spoiled)
		if err := tag(fd, t.member); err != nil {
			d.log.Warn("cannot change them back", "generation", t.generation, "error", err)
		}
	}
}

// has says whether a connection with a tag is the generation's.
func (t *tally) has(tag int8) bool { return int(tag) == t.member || slices.Contains(t.also, int(tag)) }

// never was a generation steered to that only now was lent its member.
const never = ^uint64(0)

// waiter is what those have who wait for a generation to have drained: one, for
// flips to and fro over a long connection would pile up more.
type waiter struct {
	done chan struct{}
	also func() bool // nil: nothing else
}

// sureLooks is how many looks say that there is nothing. The kernel walks its
// table while it changes, so one look may miss what moves in it.
const sureLooks = 2

// snapshot is one look at the sockets of the groups' addresses.
type snapshot struct {
	list       []socketSeen // with a tag, open or waiting
	handshakes []socketSeen
}

// look takes a snapshot. counting is held.
func (d *Direct) look() error {
	s := &d.seen
	s.list, s.handshakes = s.list[:0], s.handshakes[:0]
	type place struct{ family, port int }
	done := map[place]bool{}
	for _, g := range d.groups {
		at := place{g.family, g.addr.Port}
		if done[at] {
			continue
		}
		done[at] = true
		err := d.diag.each(g.family, g.addr.Port, openStates, func(x *socketSeen) {
			switch {
			case !d.serves(x):
			case x.state == tcpSynRecv && x.tag == untold:
				s.handshakes = append(s.handshakes, *x)
			case x.inode != 0 || x.waits():
				s.list = append(s.list, *x)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serves says whether a socket is a connection of one of the groups.
func (d *Direct) serves(s *socketSeen) bool {
	local := s.local()
	for _, g := range d.groups {
		at, _ := netip.AddrFromSlice(g.addr.IP)
		if g.family == int(s.family) && g.addr.Port == int(s.id[0])<<8|int(s.id[1]) &&
			(!at.IsValid() || at.IsUnspecified() || at.Unmap() == local) {
			return true
		}
	}
	return false
}

// fewSockets is up to how many are looked up one by one: a walk through the
// kernel's table costs as much as some thousand of that.
const fewSockets = 1000

// count brings the tallies up to date with a new look at the sockets, or, for few
// (fewSockets), by looking up those that are left. left says since when each
// drains. changed says that a count is another than before. counting is held.
func (d *Direct) count(all []*tally, left map[*tally]uint64, few bool) (changed bool, err error) {
	d.seen.list, d.seen.handshakes = d.seen.list[:0], d.seen.handshakes[:0]
	if !few {
		if err := d.look(); err != nil {
			return false, err
		}
	}
	for _, t := range all {
		d.readTags(t)
		open := make(map[uint64]socketSeen, t.counted.Load())
		for _, s := range d.seen.list {
			if t.has(s.tag) {
				open[s.cookie] = s
			}
		}
		if d.former {
			t.keepKnown(open)
		}
		if err := d.thin(t, left[t], open); err != nil {
			return changed, err
		}
		waiting, queued := 0, 0
		for _, s := range open {
			if s.inode == 0 {
				waiting++
			}
		}
		if !d.former {
			var err error
			if queued, err = d.queued(t.member); err != nil {
				return changed, err
			}
		}
		// A client that left while it waited is in the queue, and no socket of
		// the look.
		n := uint64(len(open) + len(t.handshakes) + max(0, queued-waiting))
		changed = changed || n != t.counted.Load()
		t.counted.Store(n)
	}
	return changed, nil
}

// keepKnown drops from open what came after the first looks.
func (t *tally) keepKnown(open map[uint64]socketSeen) {
	if t.looks >= sureLooks {
		maps.DeleteFunc(open, func(cookie uint64, _ socketSeen) bool {
			_, known := t.open[cookie]
			return !known
		})
	}
}

// thin makes sure of what has ended since the last look: what it did not find is
// looked up by itself, and added to open if it is still there.
func (d *Direct) thin(t *tally, left uint64, open map[uint64]socketSeen) error {
	if left == 0 {
		t.since, t.looks, t.handshakes, t.open = 0, 0, nil, nil
		return nil
	}
	if t.since != left {
		t.since, t.looks, t.handshakes, t.open = left, 0, map[uint64]socketSeen{}, nil
	}
	if t.looks++; t.looks <= sureLooks && left != never {
		for _, s := range d.seen.handshakes {
			t.handshakes[s.cookie] = s
		}
	}
	for cookie, s := range t.handshakes {
		now, ok, err := d.diag.has(&s)
		if err != nil {
			return err
		}
		if ok && now.state == tcpSynRecv { // TIME_WAIT has no tag either
			continue
		}
		delete(t.handshakes, cookie)
		if ok && t.has(now.tag) && (now.inode != 0 || now.waits()) {
			open[cookie] = now
		}
	}
	for cookie, s := range t.open {
		if _, ok := open[cookie]; ok {
			continue
		}
		now, ok, err := d.diag.has(&s)
		if err != nil {
			return err
		}
		if ok && (now.inode != 0 || now.waits()) {
			open[cookie] = now
		}
	}
	t.open = open
	return nil
}

// InFlight gives a generation's connections as they were last counted: those
// that its processes have and those that wait in its queues.
func (d *Direct) InFlight(generation uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tallies[generation]; t != nil {
		return t.counted.Load()
	}
	return 0
}

// Count counts all generations' connections now, for InFlight.
func (d *Direct) Count() error {
	d.counting.Lock()
	defer d.counting.Unlock()
	all, left := d.list(nil)
	if _, err := d.count(all, left, false); err != nil {
		return fmt.Errorf("count connections: %w", err)
	}
	return nil
}

// list gives the tallies that are wanted, nil for all, and since when each
// drains.
func (d *Direct) list(wanted func(*tally) bool) (list []*tally, left map[*tally]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left = map[*tally]uint64{}
	for _, t := range d.tallies {
		if wanted == nil || wanted(t) {
			list = append(list, t)
			left[t] = t.left
		}
	}
	return list, left
}
