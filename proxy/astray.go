package proxy

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// What waited in a queue is relayed to the listener's own address, see doc.go on the
// direct path. If the kernel leads there elsewhere than is thought, to a queue that
// the relay takes from, it is relayed to itself, accepted, relayed again, and so on
// without end. So the relay knows the connections that it has made to an own address
// (route.inOrder). One of them that comes in as a client has gone astray: it waits,
// and no client more is taken, until Direct has looked where the kernel leads.

// ownDials are the local ends of connections that the relay has made to own
// addresses.
type ownDials struct {
	mu   sync.Mutex
	from map[netip.AddrPort]bool
}

func (o *ownDials) has(at netip.AddrPort) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.from[at]
}

func (o *ownDials) set(at netip.AddrPort, on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !on:
		delete(o.from, at)
	case o.from == nil:
		o.from = map[netip.AddrPort]bool{at: true}
	default:
		o.from[at] = true
	}
}

// Why clients are kept in the queues, beside a hold: bits of Proxy.barred.
const (
	barDown    = 1 << iota // the current generation's member was shut down
	barAstray              // the relay met itself
	barProving             // somebody looks where the kernel leads
)

// bar keeps clients in the listeners' queues as a hold does, apart from it: where the
// kernel cannot give them to the current generation for now. It returns when every
// loop has seen it.
func (p *Proxy) bar(why uint32, on bool) {
	var was uint32
	if on {
		was = p.barred.Or(why)
	} else {
		was = p.barred.And(^why)
	}
	if (was&why != 0) != on {
		p.command(command{what: look})
	}
}

// straight says whether a client may be sent to the listener's own address now. If
// not it is tried later, and its time does not run.
func (l *loop) straight(c *conn) bool {
	p := l.proxy
	if p.astray == nil {
		return true
	}
	met := p.proven.Load()
	if p.barred.Load() == 0 && !l.isOwn(c) {
		return true
	}
	if at, known := l.strayed[c.index]; known && at != met && p.barred.Load() == 0 {
		return true // where the kernel leads is known to be right since
	} else if !known && l.isOwn(c) {
		if l.strayed == nil {
			l.strayed = map[int32]uint64{}
		}
		l.strayed[c.index] = met
		p.barred.Or(barAstray)
		l.listen()
		p.astray()
	}
	c.due = l.now + p.connectTimeout
	l.tryLater(c)
	return false
}

// isOwn says whether a client is a connection of the relay itself.
func (l *loop) isOwn(c *conn) bool {
	sa, err := unix.Getpeername(int(c.side[client].fd))
	return err == nil && l.proxy.own.has(sockAddr(sa))
}

// noteOwn remembers the connection to an own address that was made for a client.
func (l *loop) noteOwn(c *conn) {
	sa, err := unix.Getsockname(int(c.side[backend].fd))
	if err != nil {
		return
	}
	if l.dialled == nil {
		l.dialled = map[int32]netip.AddrPort{}
	}
	l.dialled[c.index] = sockAddr(sa)
	l.proxy.own.set(sockAddr(sa), true)
}

// forgetOwn is for when that connection has ended.
func (l *loop) forgetOwn(c *conn) {
	if len(l.dialled) == 0 {
		return
	}
	if at, ok := l.dialled[c.index]; ok {
		delete(l.dialled, c.index)
		l.proxy.own.set(at, false)
	}
}
