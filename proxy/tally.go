package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// tally counts one generation's connections, as nobody in this process sees
// them come and go. They are: those in the queues of its member, and sockets of
// the groups' addresses that its processes have open.
//
// While new connections go to it, both are counted when somebody asks. From the
// moment that it drains its connections can only become fewer, so they are
// remembered one by one: those that its processes had, and suspects. A suspect
// is a connection that no process had at the first look after the switch: its
// handshake was not done, or it waited in a queue (nobody tells in whose), or it
// was being accepted or passed from process to process just then. A suspect
// that is found with a process of the generation is its, one that is found
// elsewhere, or has ended, is none any more. The generation has drained when
// nothing of its is left, no suspect, and nothing in its queue.
type tally struct {
	generation uint64
	member     int
	processes  func() ([]int, error) // nil: none run
	left       uint64                // turn at which it was steered away from; 0: new connections go to it
	waiters    []chan struct{}

	// Below: guarded by Direct.counting.
	count    uint64 // at the last look
	frozen   uint64 // left, when the two sets were made
	owned    map[uint64]*socketSeen
	suspects map[uint64]*suspect
	looks    int  // since then
	streak   int  // looks in a row at which the queues held all that waits
	unknown  bool // its processes' descriptors cannot be read
	at       time.Time
}

type suspect struct {
	socketSeen
	lost int // looks at which it had an inode that no known process has
}

// snapshot is one look at the sockets of the groups' addresses.
type snapshot struct {
	list    []socketSeen
	cookies map[uint64]int // index in list
	inodes  map[uint32]int
	queues  [2]int // of all members, before and after
	waiting int    // made, and had by no process
	taken   time.Time
	cost    time.Duration
}

// look takes a snapshot. counting is held.
func (d *Direct) look() error {
	s := &d.seen
	begin := time.Now()
	s.list = s.list[:0]
	if s.cookies == nil {
		s.cookies, s.inodes = map[uint64]int{}, map[uint32]int{}
	}
	clear(s.cookies)
	clear(s.inodes)
	s.waiting = 0
	var err error
	if s.queues[0], err = d.allQueued(); err != nil {
		return err
	}
	type place struct{ family, port int }
	done := map[place]bool{}
	for _, g := range d.groups {
		at := place{g.family, g.addr.Port}
		if done[at] {
			continue
		}
		done[at] = true
		if err := d.diag.each(g.family, g.addr.Port, openStates, func(x *socketSeen) {
			if !d.serves(x) {
				return
			}
			s.cookies[x.cookie] = len(s.list)
			if x.inode != 0 {
				s.inodes[x.inode] = len(s.list)
			} else if x.waits() && x.state != tcpSynRecv {
				s.waiting++
			}
			s.list = append(s.list, *x)
		}); err != nil {
			return err
		}
	}
	if s.queues[1], err = d.allQueued(); err != nil {
		return err
	}
	s.taken = time.Now()
	s.cost = s.taken.Sub(begin)
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

func (d *Direct) allQueued() (int, error) {
	n := 0
	for m := range d.members {
		q, err := d.queued(m)
		if err != nil {
			return 0, err
		}
		n += q
	}
	return n, nil
}

// count brings some of the tallies up to date with a new look at the sockets.
// changed says that a count is another than before. counting is held.
func (d *Direct) count(some []*tally, left map[*tally]uint64, all []*tally) (changed bool, err error) {
	if err := d.look(); err != nil {
		return false, err
	}
	h := holders{}
	for _, t := range some {
		before := t.count
		queued, err := d.queued(t.member)
		if err != nil {
			return changed, err
		}
		if left[t] == 0 {
			t.frozen = 0
			mine, err := h.of(t)
			t.unknown = err != nil
			n := 0
			for inode := range mine {
				if _, ok := d.seen.inodes[inode]; ok {
					n++
				}
			}
			t.count = uint64(n + queued)
		} else {
			if t.frozen != left[t] {
				t.frozen, t.looks, t.streak = left[t], 0, 0
				t.owned, t.suspects = map[uint64]*socketSeen{}, map[uint64]*suspect{}
			}
			if t.looks < sureLooks {
				t.looks++
				d.freeze(t, h)
			}
			if err := d.thin(t, all, h, queued); err != nil {
				return changed, err
			}
			n := len(t.owned) + queued
			for _, s := range t.suspects {
				if s.inode != 0 || s.state == tcpSynRecv {
					n++
				}
			}
			t.count = uint64(n)
		}
		t.at = time.Now()
		changed = changed || before != t.count
	}
	d.seen.cost += time.Since(d.seen.taken)
	return changed, nil
}

// sureLooks is how often freeze looks: a walk through the kernel's table may
// miss a socket that moves in it.
const sureLooks = 2

// freeze takes down what the generation has, and what may yet come to it.
func (d *Direct) freeze(t *tally, h holders) {
	mine, err := h.of(t)
	if err != nil && !t.unknown {
		d.log.Warn("cannot count the connections of a generation: it is taken for busy", "generation", t.generation, "error", err)
	}
	t.unknown = err != nil
	for _, s := range d.seen.list {
		switch {
		case t.owned[s.cookie] != nil || t.suspects[s.cookie] != nil:
		case s.inode != 0 && mine[s.inode]:
			t.owned[s.cookie] = &s
		case s.inode != 0 || s.waits():
			t.suspects[s.cookie] = &suspect{socketSeen: s}
		}
	}
}

// thin drops what has ended, and places the suspects that a process has by now.
func (d *Direct) thin(t *tally, all []*tally, h holders, queued int) error {
	for cookie, s := range t.owned {
		now, ok, err := d.now(s)
		if err != nil {
			return err
		}
		if !ok || now.inode == 0 {
			delete(t.owned, cookie)
		}
	}
	var placed []*suspect // that some process has
	for cookie, s := range t.suspects {
		now, ok, err := d.now(&s.socketSeen)
		switch {
		case err != nil:
			return err
		case !ok || now.inode == 0 && !now.waits():
			delete(t.suspects, cookie)
		default:
			s.socketSeen = now
			if now.inode != 0 {
				placed = append(placed, s)
			}
		}
	}
	if err := d.place(t, all, h, placed); err != nil {
		return err
	}
	// Where the queues of the others hold exactly what waits, nothing is on its
	// way to this generation, however long the others take to accept it.
	if s := &d.seen; queued == 0 && s.waiting == s.queues[0] && s.waiting == s.queues[1] {
		t.streak++
	} else {
		t.streak = 0
	}
	if t.streak >= 3 {
		maps.DeleteFunc(t.suspects, func(_ uint64, s *suspect) bool { return s.inode == 0 && s.state != tcpSynRecv })
	}
	return nil
}

// now gives how a socket is at this look. One that the look did not find is
// looked up by itself: the walk through the kernel's table may miss one.
func (d *Direct) now(s *socketSeen) (socketSeen, bool, error) {
	if i, ok := d.seen.cookies[s.cookie]; ok {
		return d.seen.list[i], true, nil
	}
	return d.diag.has(s)
}

// place finds out whose the suspects are that some process has.
func (d *Direct) place(t *tally, all []*tally, h holders, suspects []*suspect) error {
	if len(suspects) == 0 {
		return nil
	}
	mine, err := h.of(t)
	if err != nil {
		return nil // counted as it is: busy
	}
	var others []map[uint32]bool
	for _, s := range suspects {
		if mine[s.inode] {
			seen := s.socketSeen
			t.owned[s.cookie] = &seen
			delete(t.suspects, s.cookie)
			continue
		}
		if others == nil {
			if others, err = h.others(t, all); err != nil {
				return nil
			}
		}
		if slices.ContainsFunc(others, func(o map[uint32]bool) bool { return o[s.inode] }) {
			delete(t.suspects, s.cookie)
			continue
		}
		// Being accepted just now, being passed from one process to another, or
		// a stranger's, whose socket listens at a narrower address.
		if s.lost++; s.lost%lostLooks == 0 && h.stranger(t, s.inode) {
			delete(t.suspects, s.cookie)
		}
	}
	return nil
}

// lostLooks is after how many looks at a socket that nobody known has it is
// looked for with everybody.
const lostLooks = 4

// drained says that nothing of the generation is left. counting is held.
func (t *tally) drained() bool {
	return !t.unknown && t.frozen != 0 && t.looks >= sureLooks && t.count == 0 && len(t.suspects) == 0
}

// recent is how long a count is good enough for those who ask: a status asks
// for each generation in turn.
const recent = 2 * time.Millisecond

// InFlight counts a generation's connections: those that its processes have and
// those that wait in its queues.
func (d *Direct) InFlight(generation uint64) (uint64, error) {
	d.counting.Lock()
	defer d.counting.Unlock()
	all, left := d.list()
	i := slices.IndexFunc(all, func(t *tally) bool { return t.generation == generation })
	if i < 0 {
		return 0, nil
	}
	if t := all[i]; time.Since(t.at) > recent || t.frozen != left[t] {
		if _, err := d.count(all, left, all); err != nil {
			return t.count, fmt.Errorf("count connections of generation %d: %w", generation, err)
		}
	}
	return all[i].count, nil
}

// list gives the tallies as they are just now, and since when each drains.
func (d *Direct) list() (all []*tally, left map[*tally]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left = map[*tally]uint64{}
	for _, t := range d.tallies {
		all = append(all, t)
		left[t] = t.left
	}
	return all, left
}
