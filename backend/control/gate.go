package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// gate bounds how many connections are open at once, and sees to it that no
// number of connections of others keeps root or proxyd's own user out.
type gate struct {
	max  int
	own  uint32                         // proxyd's effective uid
	peer func(net.Conn) (uint32, error) // peerUID, but in tests
	// peerPidfd and bootTicks, but in tests.
	peerPidfd func(fd int) (int, error)
	ticks     func() uint64

	mu     sync.Mutex
	closed bool
	turn   uint64 // counts up with every change of a connection
	conns  map[*conn]bool
}

// conn is one accepted connection and who is at its other end.
type conn struct {
	net.Conn
	gate    *gate
	uid     uint32
	trusted bool // may change things

	accepted uint64 // when, in clock ticks since the boot

	// Guarded by gate.mu.
	serving bool   // a whole request came and is being answered
	since   uint64 // the turn of its last change

	rights []int // to be sent with the next bytes; of the goroutine that answers
}

func newGate(maxConns int, own uint32) *gate {
	return &gate{max: maxConns, own: own, peer: peerUID, peerPidfd: peerPidfd, ticks: bootTicks, conns: map[*conn]bool{}}
}

// guard gives l as a listener whose connections pass the gate.
func (g *gate) guard(l net.Listener) net.Listener { return &guarded{Listener: l, gate: g} }

type guarded struct {
	net.Listener
	gate *gate
}

// Accept gives the next connection that is let in.
func (l *guarded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			return nil, passing{err}
		}
		uid, err := l.gate.peer(c)
		if err != nil {
			c.Close()
			continue
		}
		if in := l.gate.admit(c, uid); in != nil {
			return in, nil
		}
		c.Close()
	}
}

// passing marks an error of accept(2) as one to wait out: for the want of
// descriptors or memory the control socket must not end. net/http waits a
// little longer each time, up to a second.
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

// peerUID tells who connected: SO_PEERCRED in unix(7), taken by the kernel at
// connect(2).
func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("read peer credentials: %T is not a unix connection", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("read peer credentials: %w", err)
	}
	return cred.Uid, nil
}

// admit lets a connection in, or gives nil. Where the gate is full another one
// has to go for it: the lowest in rank that does not rank above the newcomer,
// and of those the one without a change for longest.
func (g *gate) admit(c net.Conn, uid uint32) *conn {
	in := &conn{Conn: c, gate: g, uid: uid, trusted: uid == 0 || uid == g.own, accepted: g.ticks()}
	victim, ok := g.enter(in)
	if victim != nil {
		victim.Conn.Close()
	}
	if !ok {
		return nil
	}
	return in
}

func (g *gate) enter(in *conn) (victim *conn, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, false
	}
	if len(g.conns) >= g.max {
		for c := range g.conns {
			if in.mayDisplace(c) && (victim == nil || c.lessThan(victim)) {
				victim = c
			}
		}
		if victim == nil {
			return nil, false
		}
		delete(g.conns, victim)
	}
	g.turn++
	in.since = g.turn
	g.conns[in] = true
	return victim, true
}

// mayDisplace: a trusted newcomer may displace any other connection, because
// what was begun for one goes on without it; an untrusted one only an untrusted
// one that is not being answered.
func (c *conn) mayDisplace(other *conn) bool {
	return c.trusted || other.rank() == 0
}

func (c *conn) rank() int {
	rank := 0
	if c.serving {
		rank++
	}
	if c.trusted {
		rank += 2
	}
	return rank
}

func (c *conn) lessThan(o *conn) bool {
	if c.rank() != o.rank() {
		return c.rank() < o.rank()
	}
	return c.since < o.since
}

// setServing notes that a whole request came, or that it was answered.
func (c *conn) setServing(serving bool) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.turn++
	c.serving, c.since = serving, c.gate.turn
}

// Close closes the connection and makes room for another.
func (c *conn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// shut lets nobody in any more and closes what is not being answered.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for c := range g.conns {
		if !c.serving {
			c.Conn.Close()
		}
	}
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// name is how history names who asked.
func (c *conn) name() string {
	if c.uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d", c.uid)
}
