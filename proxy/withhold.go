package proxy

import "fmt"

// withheld is the owner of a member that is nobody's and must not be lent: no
// generation has this number.
const withheld = ^uint64(0)

// Withhold keeps a member from being lent, and its queue from the relay, as long as
// processes may accept from it that are no generation any more: a program that is
// told to end may go on serving for a while, and whoever was lent its member would
// share its clients with it. If a generation has the member, it loses it. New
// connections come to it only where they are steered there already; the next Steer or
// Lend ends that. Readmit ends it.
func (d *Direct) Withhold(member int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if member < 1 || member >= len(d.members) {
		return fmt.Errorf("withhold member %d: %w: there is none", member, ErrGroup)
	}
	if err := d.proxy.Serve(false, d.fds(member)...); err != nil {
		return err
	}
	for generation, t := range d.tallies {
		if t.member == member {
			delete(d.tallies, generation)
			t.release()
		}
	}
	d.members[member].generation = withheld
	return nil
}

// Readmit gives back what Withhold has taken: nobody else accepts from the member any
// more. What waits in its queues is relayed to wherever new connections go.
func (d *Direct) Readmit(member int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if member < 1 || member >= len(d.members) || d.members[member].generation != withheld {
		return nil
	}
	m := &d.members[member]
	m.generation, m.left, m.back = 0, d.turn, &comeBack{}
	d.wake()
	d.noticeDown()
	d.mustRevive(member)
	if d.to < 0 {
		return nil // begin does it
	}
	return d.proxy.Serve(true, d.fds(member)...)
}
