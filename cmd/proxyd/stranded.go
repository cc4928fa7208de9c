package main

import (
	"fmt"
	"net"
	"slices"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// Generations of the direct path outlive proxyd with sockets of their own. Where the
// listeners are other sockets by then, at another address or opened anew at the same
// one, those lead to no member of theirs: such a generation is stranded. It is not
// taken for one that has the member of the same number, keeps the clients that it
// has, and ends.

// keep is lend for a generation that has its member from an earlier proxyd. An error
// says why it is stranded.
func (p *directPath) keep(id uint64, known socketNote) ([]activation.Listener, error) {
	if err := p.isMember(known); err != nil {
		return nil, err
	}
	if p.direct == nil {
		return nil, fmt.Errorf("its sockets are of the listeners' own group, which is steered no more: %s", p.why)
	}
	fds, err := p.direct.Keep(id, known.Member)
	if err != nil {
		return nil, err
	}
	p.note(id, "")
	return p.listeners(fds), nil
}

// isMember compares what is known of a generation's sockets with the member that has
// its number now.
func (p *directPath) isMember(known socketNote) error {
	now, err := p.socketsOf(known.Member)
	if err != nil {
		return err
	}
	if len(known.Sockets) == 0 && p.direct != nil { // of a proxyd that noted no more than that
		for name, a := range known.Addresses {
			if at := p.direct.Reach(name); at == nil || textAddress(at) != a {
				return fmt.Errorf("its sockets are at %s, where listener %q is not any more", a, name)
			}
		}
		return nil
	}
	for _, s := range known.Sockets {
		if !slices.ContainsFunc(now, func(n memberSocket) bool { return n.Address == s.Address }) {
			return fmt.Errorf("its sockets are at %s, where no listener is any more", s.Address)
		}
	}
	if len(known.Sockets) > 0 && !slices.Equal(known.Sockets, now) {
		return fmt.Errorf("its sockets are none of the listeners', which were opened anew")
	}
	return nil
}

// socketsOf gives the sockets of a member, by group.
func (p *directPath) socketsOf(member int) (sockets []memberSocket, err error) {
	for _, g := range p.groups {
		if member < 1 || member >= len(g.members) {
			return nil, fmt.Errorf("listener %q has no socket of number %d any more", g.name, member)
		}
		s := memberSocket{Address: textAddress(g.address)}
		if s.Cookie, err = g.members[member].Cookie(); err != nil {
			return nil, err
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// strand notes that a generation is stranded, and counts what it has in flight. Where
// it may go on being given clients that are the listeners', it is not counted, and so
// is taken for drained: it must end.
func (p *directPath) strand(id uint64, k *keptSockets) {
	p.note(id, k.stranded)
	if k.member == 0 {
		return
	}
	var at []*net.TCPAddr
	for _, a := range k.listened() {
		if tcp, err := net.ResolveTCPAddr("tcp", a); err == nil {
			at = append(at, tcp)
		}
	}
	if p.stillTakes(at) {
		p.log.Warn("a generation of before is in the way of the listeners' clients: it is ended at once", "generation", id)
		return
	}
	former, err := proxy.NewFormer(id, k.member, at, p.log)
	if err != nil {
		p.log.Warn("cannot count what a generation of before has in flight: it is ended at once", "generation", id, "error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.formers[id] = former
}

// listened gives the addresses that a member's sockets listen at.
func (k *keptSockets) listened() (at []string) {
	for _, s := range k.sockets {
		at = append(at, s.Address)
	}
	if len(at) == 0 {
		for _, a := range k.addresses {
			at = append(at, textAddress(a))
		}
	}
	return at
}

// stillTakes says that sockets at the addresses may be given clients of the
// listeners. In a group with the listeners' own they are not once it is steered.
func (p *directPath) stillTakes(at []*net.TCPAddr) bool {
	for _, a := range at {
		for _, g := range p.groups {
			tcp, ok := g.address.(*net.TCPAddr)
			switch {
			case !ok || tcp.Port != a.Port:
			case tcp.IP.Equal(a.IP):
				if p.direct == nil && !p.keepApart(g, tcp) {
					return true
				}
			case goesBefore(a.IP, tcp.IP):
				return true
			}
		}
	}
	return false
}

// keepApart steers a group that is not steered away from sockets of before, once for
// all of these.
func (p *directPath) keepApart(g *listenerGroup, at *net.TCPAddr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.apart[at.String()] {
		return true
	}
	err := proxy.Apart([]proxy.Group{{Name: g.name, Address: at, Members: g.fds()}})
	if err != nil {
		p.log.Warn("cannot keep new connections from sockets of before", "listener", g.name, "error", err)
	}
	p.apart[at.String()] = err == nil
	return err == nil
}

// goesBefore says that the kernel prefers a socket that is bound to one address over
// another's, of the same port: the more exact one, and among those for all addresses
// IPv4's for a client of IPv4 (compute_score in net/ipv4/inet_hashtables.c).
func goesBefore(one, other net.IP) bool {
	if !other.IsUnspecified() {
		return false
	}
	return !one.IsUnspecified() || one.To4() != nil && other.To4() == nil
}

// former gives what counts a stranded generation; nil for any other.
func (p *directPath) former(id uint64) *proxy.Former {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.formers[id]
}

// unstrand ends the counting of a generation that has ended.
func (p *directPath) unstrand(id uint64) {
	p.mu.Lock()
	f := p.formers[id]
	delete(p.formers, id)
	p.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// closeFormers ends all counting of stranded generations.
func (p *directPath) closeFormers() {
	for id := range p.allFormers() {
		p.unstrand(id)
	}
}

// allFormers gives those that are counted now.
func (p *directPath) allFormers() map[uint64]*proxy.Former {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[uint64]*proxy.Former{}
	for id, f := range p.formers {
		all[id] = f
	}
	return all
}

// countFormers brings the counts of stranded generations up to date.
func (p *directPath) countFormers() {
	for id, f := range p.allFormers() {
		if err := f.Count(); err != nil {
			p.log.Warn("cannot count connections", "generation", id, "error", err)
		}
	}
}
