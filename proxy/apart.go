package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// apartTag is that of all sockets of ours while others are members of the group. It
// is the tag of no member but the last that there can be.
const apartTag = mostMembers - 1

// Apart is for groups that NewDirect refuses because sockets of somebody else are
// members as well: generations hold them from before, and systemd has opened its
// own anew at the same address. Ours lead to the relay, all of them, and the kernel
// must give no new connection to any other. So it is steered to the first of ours,
// whose index is found by trying: a connection of a try that comes to somebody else
// is closed at once, and to the relay one that comes to us is a client that leaves.
// What the others have they keep.
//
// Ours began to listen last, so meanwhile the last index is as good. It does not stay
// so: when a member is closed the last one takes its place.
func Apart(groups []Group) error {
	diag, err := openDiag()
	if err != nil {
		return err
	}
	defer diag.close()
	for _, c := range groups {
		g := &group{name: c.Name, addr: c.Address, fds: c.Members, family: familyOf(c.Address), to: -1}
		g.dual = g.family == unix.AF_INET6
		err := g.keepApart(diag)
		if err != nil {
			return fmt.Errorf("steer listener %q at %s away from sockets of before: %w", c.Name, c.Address, err)
		}
	}
	return nil
}

func (g *group) keepApart(diag *diag) error {
	for _, fd := range g.fds {
		if err := tag(fd, apartTag); err != nil {
			return err
		}
	}
	members := 0
	err := diag.each(g.family, g.addr.Port, 1<<tcpListen, func(s *socketSeen) {
		if s.local() == g.listens() {
			members++
		}
	})
	if err != nil {
		return err
	}
	if err := g.steer(members - 1); err != nil {
		return err
	}
	var tried error
	for index := range members {
		ours, err := g.comesToUs(diag, index)
		if ours {
			return g.steer(index)
		}
		tried = errors.Join(tried, err) // one whose queue is full takes no more
	}
	return errors.Join(fmt.Errorf("%w: no index leads to a socket of ours", ErrGroup), tried)
}

// comesToUs says whether a connection that is sent to an index comes to a socket
// with apartTag.
func (g *group) comesToUs(diag *diag, index int) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), arriveTime)
	defer cancel()
	conn, err := g.dial(ctx, index)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	at, err := g.peerTag(diag, conn)
	return at == apartTag, err
}

// listens is the address as sock_diag tells it.
func (g *group) listens() netip.Addr {
	return g.addr.AddrPort().Addr().Unmap().WithZone("")
}
