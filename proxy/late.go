package proxy

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// A handshake that began while a member was steered to ends there, maybe much
// later: under TCP_DEFER_ACCEPT, or where packets are lost. Once the member is
// another generation's, its client would be given to one that may be staged only.
// So a member that comes back is lent again when those are over. Meanwhile it is
// the relay's, as every member that is nobody's.
//
// Whoever sends the first packet of a handshake and then nothing, as a flood
// does, keeps it under way until the kernel gives it up: 63 seconds with the
// default of net.ipv4.tcp_synack_retries (ip-sysctl), and a second for each of
// TCP_DEFER_ACCEPT. Only those count that were under way when the member came
// back, so no flood holds it for longer. A generation that is started meanwhile
// and finds no other is relayed, and moves.

// errLate: a member is nobody's, but handshakes may still come to it.
var errLate = fmt.Errorf("%w: handshakes that began before are under way", ErrNoMember)

// lateTime is how long Lend waits for them: most take as long as a packet takes
// to the client and back.
const lateTime = time.Second

// comeBack is a member that came back, before it is known what may still come to
// it. Nothing is known of who had it before this Direct was made.
type comeBack struct {
	was  *tally // of the generation that had it
	left uint64 // of was, at that time; 0: new connections went to it, or it is not known
}

// rest waits a moment in Lend, for watch to go on. False: it is not worth it.
func (d *Direct) rest(ctx context.Context) bool {
	t := time.NewTimer(firstLook)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-d.quit:
	}
	return false
}

// settle finds out which handshakes may still come to members that came back,
// and which of them are over. fewer says that some are; late, that some are not,
// or that it is not known.
func (d *Direct) settle() (fewer, late bool) {
	d.counting.Lock()
	defer d.counting.Unlock()
	d.mu.Lock()
	members := make([]lending, len(d.members))
	copy(members, d.members)
	d.mu.Unlock()
	var under map[uint64]socketSeen // all that are under way, once they are wanted
	for i, m := range members {
		if m.back == nil && len(m.late) == 0 {
			continue
		}
		left, err := d.stillLate(m, &under)
		if err != nil {
			d.log.Warn("cannot look for handshakes, trying again", "error", err)
			late = true
			continue
		}
		fewer = fewer || m.back != nil || len(left) < len(m.late)
		late = late || len(left) > 0
		d.mu.Lock()
		if now := &d.members[i]; now.back == m.back {
			now.back, now.late = nil, left
		} else { // it has come back just now
			late = true
		}
		d.mu.Unlock()
	}
	return fewer, late
}

// stillLate gives the handshakes that may still come to a member. Where its
// generation drained, its tally has them. Else they are among all that are under
// way, which is looked at once. counting is held.
func (d *Direct) stillLate(m lending, under *map[uint64]socketSeen) (map[uint64]socketSeen, error) {
	left := maps.Clone(m.late)
	if b := m.back; b != nil {
		if b.left != 0 && b.was.since == b.left && b.was.looks >= sureLooks {
			left = maps.Clone(b.was.handshakes)
		} else {
			if *under == nil {
				all := map[uint64]socketSeen{}
				for range sureLooks {
					if err := d.look(); err != nil {
						return nil, err
					}
					for _, s := range d.seen.handshakes {
						all[s.cookie] = s
					}
				}
				*under = all
			}
			left = maps.Clone(*under)
		}
	}
	for cookie, s := range left {
		now, ok, err := d.diag.has(&s)
		if err != nil {
			return nil, err
		}
		if !ok || now.state != tcpSynRecv {
			delete(left, cookie)
		}
	}
	return left, nil
}
