package proxy

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Route is where the connections of one generation go: an address for each
// listener. It stays usable for counting and cutting after it was replaced.
type Route struct {
	proxy      *Proxy
	generation uint64
	dests      []dest   // by listener
	counts     []counts // by loop
	inOrder    bool     // set before its first Switch

	watched atomic.Bool // somebody waits for Drained
	mu      sync.Mutex
	quiet   bool          // not the switched one, and every loop knows
	waiter  chan struct{} // nil: nobody waits for it to be drained
}

// dest is an address as connect(2) takes it.
type dest struct {
	family int
	raw    []byte
	port   int
	remote bool // not this machine's loopback: the peer can vanish silently
}

// counts is one loop's part of a route's counts. Only that loop writes it, and
// it fills its cache lines, so that counting is never contended.
type counts struct {
	inFlight atomic.Int64
	accepted atomic.Int64
	failures atomic.Int64
	bytes    [2]atomic.Uint64
	_        [128 - 5*8]byte
}

// Counts is what happened on a route. The parts are read one after the other;
// InFlight is exact for a route that Switch has replaced, see the package
// comment.
type Counts struct {
	InFlight         uint64 // client connections that it still serves
	Accepted         uint64 // client connections that it was given
	ConnectFailures  uint64 // those that could not be connected in time
	BytesFromClients uint64
	BytesToClients   uint64
}

// Counts sums what the loops counted. Safe for concurrent use.
func (r *Route) Counts() Counts {
	var c Counts
	for i := range r.counts {
		n := &r.counts[i]
		c.InFlight += uint64(max(0, n.inFlight.Load()))
		c.Accepted += uint64(max(0, n.accepted.Load()))
		c.ConnectFailures += uint64(n.failures.Load())
		c.BytesFromClients += n.bytes[client].Load()
		c.BytesToClients += n.bytes[backend].Load()
	}
	return c
}

// Generation is the number that NewRoute was given.
func (r *Route) Generation() uint64 { return r.generation }

// Drained gives a channel that is closed when the route is not the switched
// one and nothing is in flight on it; at once if that is so already. No
// goroutine is behind it. Asked again before that, it gives the same one. It is
// not closed by Proxy.Close, which leaves no
// connection but changes no route.
func (r *Route) Drained() <-chan struct{} {
	r.mu.Lock()
	if r.waiter == nil {
		r.waiter = make(chan struct{})
	}
	done := r.waiter
	r.watched.Store(true)
	r.mu.Unlock()
	r.check()
	return done
}

// check tells those who wait if the route is drained.
func (r *Route) check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.quiet {
		return
	}
	for i := range r.counts {
		if r.counts[i].inFlight.Load() != 0 {
			return
		}
	}
	if r.waiter != nil {
		close(r.waiter)
		r.waiter = nil
	}
	r.watched.Store(false)
}

func (r *Route) setQuiet(quiet bool) {
	r.mu.Lock()
	r.quiet = quiet
	r.mu.Unlock()
	if quiet {
		r.check()
	}
}

// Cut resets every connection that is left on the route. It returns when every
// loop has done so. What a client that waits for its first connect is counted
// on is cut too.
func (r *Route) Cut() {
	r.proxy.command(command{what: cut, route: r})
}

// NewRoute makes a route for a generation. addrs has an address for each
// listener name: *net.UnixAddr (unix) or *net.TCPAddr. Nothing is opened.
func (p *Proxy) NewRoute(generation uint64, addrs map[string]net.Addr) (*Route, error) {
	r := &Route{proxy: p, generation: generation, quiet: true, counts: make([]counts, len(p.loops))}
	for _, name := range p.names {
		addr, ok := addrs[name]
		if !ok {
			return nil, fmt.Errorf("make route: listener %q: %w", name, ErrNoAddress)
		}
		d, err := newDest(addr)
		if err != nil {
			return nil, fmt.Errorf("make route: listener %q: %w", name, err)
		}
		r.dests = append(r.dests, d)
	}
	return r, nil
}

// KeepOrder has one loop take all clients of the route, so that they are
// connected in the order in which they waited. It is for a route that only takes
// what has piled up, to the listeners' own addresses, and is called before the
// route is switched to. Config.ConnectTimeout does not end the wait there.
func (r *Route) KeepOrder() { r.inOrder = true }

// newDest lays an address out as struct sockaddr_un, _in or _in6.
func newDest(addr net.Addr) (dest, error) {
	switch a := addr.(type) {
	case *net.UnixAddr:
		name := a.Name
		if name == "" || len(name) > 107 {
			return dest{}, fmt.Errorf("unix address %q: %w", name, ErrAddress)
		}
		raw := append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), name...)
		if name[0] == '@' {
			raw[2] = 0 // the abstract namespace, unix(7)
		} else {
			raw = append(raw, 0)
		}
		return dest{family: unix.AF_UNIX, raw: raw}, nil
	case *net.TCPAddr:
		if a.Port <= 0 || a.Port > 65535 {
			return dest{}, fmt.Errorf("port %d: %w", a.Port, ErrAddress)
		}
		ip := a.IP
		if ip == nil || ip.IsUnspecified() {
			ip = net.IPv4(127, 0, 0, 1)
			if a.IP != nil && a.IP.To4() == nil {
				ip = net.IPv6loopback
			}
		}
		if v4 := ip.To4(); v4 != nil {
			raw := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
			raw = binary.BigEndian.AppendUint16(raw, uint16(a.Port))
			raw = append(append(raw, v4...), make([]byte, 8)...)
			return dest{unix.AF_INET, raw, a.Port, !v4.IsLoopback()}, nil
		}
		scope := uint32(0)
		if a.Zone != "" {
			ifi, err := net.InterfaceByName(a.Zone)
			if err != nil {
				return dest{}, fmt.Errorf("zone %q: %w", a.Zone, err)
			}
			scope = uint32(ifi.Index)
		}
		raw := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
		raw = binary.BigEndian.AppendUint16(raw, uint16(a.Port))
		raw = append(raw, 0, 0, 0, 0)
		raw = append(raw, ip.To16()...)
		raw = binary.NativeEndian.AppendUint32(raw, scope)
		return dest{unix.AF_INET6, raw, a.Port, !ip.IsLoopback()}, nil
	}
	return dest{}, fmt.Errorf("address %v: %w", addr, ErrAddress)
}

// cell is what a loop knows of a route that it has connections on.
type cell struct {
	route  *Route
	counts *counts
	n      int
}

// place counts a connection on r and no longer on where it was; nil: nowhere.
func (l *loop) place(c *conn, r *Route) {
	if c.cell >= 0 {
		was := &l.cells[c.cell]
		if was.route == r {
			return
		}
		old := was.route
		was.n--
		left := was.counts.inFlight.Add(-1)
		if was.n == 0 && old != l.proxy.route.Load() {
			*was = cell{}
		}
		c.cell = -1
		if left == 0 && old.watched.Load() {
			old.check()
		}
	}
	if r == nil {
		return
	}
	c.cell = l.cellOf(r)
	to := &l.cells[c.cell]
	to.n++
	to.counts.accepted.Add(1)
	to.counts.inFlight.Add(1)
}

// cellOf finds the cell of a route. There are as many as routes with
// connections: a handful.
func (l *loop) cellOf(r *Route) int32 {
	free := -1
	for i := range l.cells {
		switch {
		case l.cells[i].route == r:
			return int32(i)
		case l.cells[i].n == 0 && free < 0:
			free = i
		}
	}
	if free < 0 {
		free = len(l.cells)
		l.cells = append(l.cells, cell{})
	}
	l.cells[free] = cell{route: r, counts: &r.counts[l.index]}
	return int32(free)
}

// count adds the bytes that the pump moved for c to its route.
func (l *loop) count(c *conn) {
	for at := range l.moved {
		if n := l.moved[at]; n > 0 {
			l.moved[at] = 0
			if c.cell >= 0 {
				l.cells[c.cell].counts.bytes[at].Add(n)
			}
		}
	}
}
