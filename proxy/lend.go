package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lending is what is known of one member.
type lending struct {
	generation uint64                // 0: nobody's
	left       uint64                // turn at which it was last steered away from
	back       *comeBack             // nil: late is known
	late       map[uint64]socketSeen // handshakes that may still come to it, by cookie; never changed
}

// free says that a generation can be given the member.
func (l *lending) free() bool { return l.generation == 0 && l.back == nil && len(l.late) == 0 }

// Free tells whether there is a member that is nobody's, for Lend to try. Handshakes
// may still come to it: nothing is told when they are over.
func (d *Direct) Free() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := 1; m < len(d.members) && d.broken == nil; m++ {
		if d.members[m].generation == 0 && !d.spare(m) {
			return true
		}
	}
	return false
}

// Lend gives a generation a member of its own: its number, for Keep, and its
// descriptors, by group, which stay borrowed. What the relay took from it is
// done with before, its queue is empty, and a connection that was sent to it has
// arrived. Where the groups are not steered from here yet, new connections are
// held from now on. A generation that has a member gets the same again. Where
// handshakes may still come to every other, it waits a second for their end.
// Where clients wait in every other and nobody takes them, see cold.go.
func (d *Direct) Lend(ctx context.Context, generation uint64) (member int, fds []int, err error) {
	tried, queued := map[int]bool{}, false
	for until := time.Now().Add(lateTime); ; {
		member, lent, err := d.reserve(generation, tried)
		if errors.Is(err, errLate) && time.Now().Before(until) && d.rest(ctx) {
			continue
		}
		if errors.Is(err, ErrNoMember) && !queued {
			queued = true
			member, err = d.reserveQueued(generation, err)
		}
		if err != nil {
			return 0, nil, err
		}
		fds := d.fds(member)
		if lent {
			return member, fds, nil
		}
		tried[member] = true
		// Not under mu: a switch must not wait for this.
		n := 1
		if err = d.proxy.Serve(false, fds...); err == nil {
			if queued {
				d.takeQueue(member)
			}
			n, err = d.queued(member)
		}
		if err == nil && n == 0 {
			if err = d.asNew(member); err == nil {
				err = d.check(ctx, member)
			}
			if errors.Is(err, ErrGroup) { // it or another left meanwhile
				if err = d.prove(); err == nil {
					err = d.check(ctx, member)
				}
			}
			if err == nil {
				d.mu.Lock()
				d.tallies[generation] = &tally{generation: generation, member: member, left: never}
				d.unsure = true
				d.wake()
				d.mu.Unlock()
				return member, fds, nil
			}
		}
		if err := d.giveUp(member, err); err != nil {
			return 0, nil, err
		}
	}
}

// reserve picks a free member that was not tried, or gives the one that the
// generation has (lent).
func (d *Direct) reserve(generation uint64, tried map[int]bool) (member int, lent bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tallies[generation]; t != nil {
		return t.member, true, nil
	}
	if d.broken != nil {
		return 0, false, d.broken
	}
	if d.to < 0 {
		if err := d.steer(hold); err != nil {
			return 0, false, err
		}
	}
	d.noticeDown()
	// A handshake that began before a member was left may end much later: so
	// the one that was left first.
	late := false
	for m := 1; m < len(d.members); m++ {
		late = late || d.members[m].generation == 0 && !d.members[m].free()
		if d.members[m].free() && !tried[m] && !d.spare(m) && (member == 0 || d.members[m].left < d.members[member].left) {
			member = m
		}
	}
	if member == 0 && late {
		return 0, false, errLate
	}
	if member == 0 {
		return 0, false, ErrNoMember
	}
	d.members[member].generation = generation
	return member, false, nil
}

// asNew takes back what the program that had a member before may have set on its
// sockets, and what the next one does not expect. What a .socket unit has set, the hold
// member has as well.
func (d *Direct) asNew(member int) error {
	for _, g := range d.groups {
		fd := g.fds[member]
		wait, err := unix.GetsockoptInt(g.fds[hold], unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		if err != nil {
			return fmt.Errorf("read TCP_DEFER_ACCEPT: %w", err)
		}
		// None is attached, mostly; one that is locked cannot be taken off.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		err = errors.Join(tag(fd, member),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, wait),
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}))
		if err == nil && isListening(fd) {
			err = unix.Listen(fd, g.backlog()) // which only sets the length of its queue
		}
		if err != nil {
			return fmt.Errorf("take back what was set on member %d of listener %q at %s: %w", member, g.name, g.addr, err)
		}
	}
	return nil
}

// spare says that a member is not lent, as it is the one that the kernel moves into
// the place of another that is shut down: clients of that one then come to nobody
// else than the relay. With three members it is: nobody else is left.
func (d *Direct) spare(member int) bool {
	return len(d.members) > leastMembers && slices.ContainsFunc(d.groups, func(g *group) bool { return g.last(member) })
}

// giveUp puts a reserved member back, for want of err. It gives the error where
// no other need be tried.
func (d *Direct) giveUp(member int, err error) error {
	d.mu.Lock()
	d.members[member].generation = 0
	if errors.Is(err, ErrGroup) && d.broken == nil {
		d.broken = err
		d.log.Error("the direct path is not used any more", "error", err)
	}
	d.mu.Unlock()
	return errors.Join(err, d.proxy.Serve(true, d.fds(member)...))
}

// check proves the index of a member that belongs to nobody, in each group.
func (d *Direct) check(ctx context.Context, member int) error {
	for _, g := range d.groups {
		if err := g.check(ctx, member, func(fd int) { d.proxy.TakeOver(fd, g.fds[hold]) }); err != nil {
			return err
		}
	}
	return nil
}

// queued counts what waits in the queues of a member.
func (d *Direct) queued(member int) (int, error) {
	n := 0
	for _, g := range d.groups {
		q, _, err := queueOf(g.fds[member])
		if err != nil {
			return 0, err
		}
		n += q
	}
	return n, nil
}

// queueOf counts the connections in a listening socket's queue, which are made
// but not accepted, and tells how many it has room for: tcp_get_info in
// net/ipv4/tcp.c.
func queueOf(fd int) (n, room int, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, fmt.Errorf("read queue length: %w", err)
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// Keep gives a generation the member that it has already, from before this
// Direct was made. It comes before the first Steer or Lend.
func (d *Direct) Keep(generation uint64, member int) ([]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if member < 1 || member >= len(d.members) {
		return nil, fmt.Errorf("keep member %d of generation %d: %w: there is none", member, generation, ErrGroup)
	}
	if g := d.members[member].generation; g != 0 && g != generation {
		return nil, fmt.Errorf("keep member %d of generation %d: %w: it is generation %d's", member, generation, ErrNoMember, g)
	}
	if err := d.proxy.Serve(false, d.fds(member)...); err != nil {
		return nil, err
	}
	d.members[member].generation = generation
	if d.tallies[generation] == nil {
		d.tallies[generation] = &tally{generation: generation, member: member, left: d.turn + 1}
	}
	return d.fds(member), nil
}

// Return takes back what was lent or kept. No process of the generation may be
// left. What waits in its queues is relayed to wherever new connections go.
func (d *Direct) Return(generation uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		return
	}
	delete(d.tallies, generation)
	d.unsure = true
	d.wake()
	d.members[t.member].generation = 0
	d.noticeDown()
	d.mustRevive(t.member)
	if t.left != never {
		d.members[t.member].back = &comeBack{t, t.left}
		d.wake()
	}
	t.release()
	if d.to == t.member {
		if err := d.steer(hold); err != nil {
			d.log.Error("new connections go to nobody", "error", err)
		}
	}
	if err := d.proxy.Serve(true, d.fds(t.member)...); err != nil {
		d.log.Error("clients that wait in a queue are not served", "error", err)
	}
	d.tidy()
}
