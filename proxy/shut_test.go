package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// shutDown is what a program does to wake a thread out of accept(2).
func shutDown(t testing.TB, fd int) {
	t.Helper()
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
}

// order is what is thought of the kernel's order of a group's members.
func (g *group) known() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.order)
}

// mustArrive wants new connections at one member, and takes them.
func mustArrive(t testing.TB, addr net.Addr, fds []int, member int) {
	t.Helper()
	for range 30 { // a hash would spread them
		c := dialTo(t, addr)
		if at := landed(t, fds); len(at) != 1 || at[0] != member {
			t.Fatalf("arrived at %v, not at %d", at, member)
		}
		c.Close()
	}
}

// Whoever shuts its member down while another is current, that one goes on being
// given all new connections, from the first moment on.
func TestWhoShutsItsMemberDownTouchesNobody(t *testing.T) {
	for _, c := range groupsTried {
		t.Run(c.name, func(t *testing.T) {
			addr, fds := membersAt(t, c.ip, 6, c.v6only)
			_, d := newDirect(t, addr, fds)
			g := d.groups[0]
			var members []int
			for n := range uint64(4) {
				m, _, err := d.Lend(t.Context(), n+1)
				if err != nil {
					t.Fatal(err)
				}
				members = append(members, m)
			}
			if _, _, err := d.Lend(t.Context(), 9); !errors.Is(err, ErrNoMember) {
				t.Fatalf("the last member, which is moved, was lent: %v", err)
			}
			if d.Free() {
				t.Fatal("the last member, which is lent to nobody, counts as free")
			}
			for _, fd := range fds {
				unix.SetNonblock(fd, true)
			}
			current := members[3]
			if err := d.Steer(4); err != nil {
				t.Fatal(err)
			}
			landed(t, fds)
			for i := range uint64(3) {
				shutDown(t, fds[members[i]])
				mustArrive(t, addr, fds, current) // noticed or not
				eventually(t, "it to be noticed", func() bool { return !g.alive(members[i]) })
				mustArrive(t, addr, fds, current)
				d.Return(i + 1)
				mustArrive(t, addr, fds, current)
				if order := g.known(); !slices.Equal(order, []int{0, 1, 2, 3, 4, 5}) {
					t.Fatalf("the next proxyd will find %v", order)
				}
				if m, _, err := d.Lend(t.Context(), 10+i); err != nil || m != members[i] {
					t.Fatalf("member %d was lent, %v", m, err)
				}
			}
		})
	}
}

// Several at once leave an order that nobody knows: it is found out.
func TestSeveralShutTheirMembersDownAtOnce(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 8, false)
	_, d := newDirect(t, addr, fds)
	g := d.groups[0]
	var members []int
	for n := range uint64(5) {
		m, _, err := d.Lend(t.Context(), n+1)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	if err := d.Steer(5); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock() // as if this were one moment
	for _, i := range []int{2, 0, 3} {
		shutDown(t, fds[members[i]])
	}
	d.mu.Unlock()
	eventually(t, "the order to be known", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.jumbled || len(g.known()) != 5 {
			return false
		}
		for i, m := range g.known() {
			conn, err := g.dialAt(t.Context(), func() int { return i })
			if err != nil {
				t.Fatal(err)
			}
			at, err := g.ask(conn)
			conn.Close()
			if err != nil {
				t.Fatal(err)
			}
			if at != m {
				return false
			}
		}
		return true
	})
	for n := range uint64(4) {
		d.Return(n + 1)
	}
	for i := range 30 {
		c := dialTo(t, addr)
		if at, err := g.ask(c.(net.Conn)); err != nil || at != members[4] {
			t.Fatalf("client %d came to %d, not to %d, %v", i, at, members[4], err)
		}
		c.Close()
	}
}

// The current generation's own member: clients wait, none is refused or relayed in a
// circle, and all come to its next run, in all its groups.
func TestTheCurrentGenerationShutsItsMemberDown(t *testing.T) {
	for _, n := range []int{3, 6} {
		addr, fds := membersAt(t, "127.0.0.1", n, false)
		p, d := newDirect(t, addr, fds)
		if n > leastMembers {
			mustLend(t, d, 1)
		}
		member := mustLend(t, d, 2)
		if err := d.Steer(2); err != nil {
			t.Fatal(err)
		}
		r, err := p.NewRoute(2, map[string]net.Addr{"web": d.Reach("web")})
		if err != nil {
			t.Fatal(err)
		}
		r.KeepOrder()
		p.Switch(r)
		shutDown(t, member)
		clients := make([]duplex, 100)
		for i := range clients {
			clients[i] = dialTo(t, addr)
			if _, err := clients[i].Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "it to be noticed", func() bool { return p.barred.Load()&barDown != 0 })
		if conn, err := d.Dial(t.Context(), 2, "web"); !errors.Is(err, errDown) {
			t.Fatalf("it is reached before it listens: %v, %v", conn, err)
		}
		if err := d.Revive(2); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(member, true); err != nil {
			t.Fatal(err)
		}
		for served := 0; served < len(clients); { // what was tried comes there as well, and says nothing
			fd := acceptFrom(t, member)
			var b [1]byte
			got := 0
			eventually(t, "its byte, or its end", func() bool {
				var err error
				got, err = unix.Read(fd, b[:])
				return err == nil
			})
			served += got
			if _, err := unix.Write(fd, b[:got]); err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		for i, c := range clients {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, []byte{byte(i)}) {
				t.Fatalf("client %d of %d members got %v, %v", i, n, got, err)
			}
			c.Close()
		}
		eventually(t, "the last own connection to be forgotten", func() bool {
			landed(t, []int{member}) // what was tried
			p.own.mu.Lock()
			defer p.own.mu.Unlock()
			return len(p.own.from) == 0
		})
		conn, err := d.Dial(t.Context(), 2, "web")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// A proxyd that was away finds the order that members have by then, and those listen
// that were shut down.
func TestMembersThatWereShutDownMeanwhile(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 6, false)
	for _, fd := range []int{fds[3], fds[1]} {
		shutDown(t, fd)
	}
	if err := unix.Listen(fds[3], 10); err != nil { // by systemd, say
		t.Fatal(err)
	}
	p, d := newDirect(t, addr, fds)
	if _, err := d.Keep(7, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.Steer(7); err != nil {
		t.Fatal(err)
	}
	if d.broken != nil {
		t.Fatal(d.broken)
	}
	mustNotServe(t, p, fds)
	landed(t, fds)
	mustArrive(t, addr, fds, 2)
	for n := range uint64(3) {
		eventually(t, "a member", func() bool {
			m, _, err := d.Lend(t.Context(), n+1)
			return err == nil && m != 2
		})
	}
}

// mustNotServe has the relay take nobody, for the test to see where clients are.
func mustNotServe(t *testing.T, p *Proxy, fds []int) {
	t.Helper()
	if err := p.Serve(false, fds[1:]...); err != nil {
		t.Fatal(err)
	}
}

// Steering that is not what it is thought to be does not make the relay connect to
// itself without end, and what it met goes on once that is put right.
func TestTheRelayDoesNotGoInCircles(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	p, d := newDirect(t, addr, fds)
	member := mustLend(t, d, 1)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	r, err := p.NewRoute(1, map[string]net.Addr{"web": d.Reach("web")})
	if err != nil {
		t.Fatal(err)
	}
	r.KeepOrder()
	p.Switch(r)
	g := d.groups[0]
	g.mu.Lock()
	order := slices.Clone(g.order) // a wrong one, behind everybody's back
	g.order = []int{order[1], order[0], order[2], order[3]}
	if err := g.steerAnew(); err != nil {
		t.Fatal(err)
	}
	g.mu.Unlock()
	c := dialTo(t, addr)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for came := false; !came; { // what was tried comes there as well, and says nothing
		fd := acceptFrom(t, member)
		var b [2]byte
		eventually(t, "its byte, or its end", func() bool {
			n, err := unix.Read(fd, b[:])
			came = n == 1 && b[0] == 'x'
			return err == nil
		})
		unix.Close(fd)
	}
	if n := p.live.Load(); n > 10 {
		t.Fatalf("%d connections for one client", n)
	}
	eventually(t, "the order to be known", func() bool { return slices.Equal(g.known(), order) && p.barred.Load() == 0 })
	c.Close()
}

// A listener that fails does not keep its loop from the others.
func TestAListenerThatFailsDoesNotStopTheOthers(t *testing.T) {
	bad, good := listenOn(t, "tcp"), listenOn(t, "tcp")
	b := listenOn(t, "tcp").Addr()
	p, err := New(Config{Loops: 1, Listeners: []Listener{{Name: "bad", FD: descriptorOf(t, bad)}, {Name: "good", FD: descriptorOf(t, good)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := p.NewRoute(1, map[string]net.Addr{"bad": b, "good": b})
	if err != nil {
		t.Fatal(err)
	}
	p.Switch(r)
	shutDown(t, descriptorOf(t, bad))
	eventually(t, "it to fail", func() bool {
		failed := false
		p.inLoop(p.loops[0], func() { failed = p.loops[0].unusable == 1 })
		return failed
	})
	l := p.loops[0]
	p.inLoop(l, func() {
		if l.resting || l.listening&2 == 0 {
			t.Errorf("resting %v, listening to %b", l.resting, l.listening)
		}
	})
}

// Where a socket of somebody else is moved between ours, what is lent goes on being
// steered to, and no member is lent any more.
func TestAStrangerIsMovedBetweenMembers(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 6, false)
	_, d := newDirect(t, addr, fds)
	mustLend(t, d, 1)
	mustLend(t, d, 2)
	third, _, err := d.Lend(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	fourth, _, err := d.Lend(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Steer(3); err != nil {
		t.Fatal(err)
	}
	arrive := func(want int) { // beside what is tried
		t.Helper()
		for i := range 30 {
			c := dialTo(t, addr)
			if at, err := d.groups[0].ask(c); err != nil || at != want {
				t.Fatalf("client %d arrived at %d, not at %d, %v", i, at, want, err)
			}
			c.Close()
		}
	}
	memberAt(t, addr, false)
	d.recheck()
	shutDown(t, fds[1])
	arrive(third)
	eventually(t, "it to be found", func() bool { _, _, err := d.Lend(t.Context(), 5); return errors.Is(err, ErrGroup) })
	arrive(third)
	d.Return(1)
	if err := d.Steer(4); err != nil {
		t.Fatal(err)
	}
	arrive(fourth)
}
