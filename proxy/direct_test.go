package proxy

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// newDirect makes the direct path of one group, "web", with its relay.
func newDirect(t testing.TB, addr *net.TCPAddr, fds []int) (*Proxy, *Direct) {
	t.Helper()
	return newDirectWith(t, addr, fds, Config{})
}

func newDirectWith(t testing.TB, addr *net.TCPAddr, fds []int, cfg Config) (*Proxy, *Direct) {
	t.Helper()
	for i, fd := range fds {
		cfg.Listeners = append(cfg.Listeners, Listener{Name: "web", FD: fd, Member: i > 0})
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	d, err := NewDirect(DirectConfig{Groups: []Group{{"web", addr, fds}}, Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return p, d
}

func TestGroupsThatCannotBeSteeredAreRefused(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	other, others := membersAt(t, "127.0.0.1", 4, false)
	single := descriptorOf(t, listenOn(t, "tcp"))
	pathed := descriptorOf(t, listenOn(t, "unix"))
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: fds[0]}, {Name: "web", FD: fds[1], Member: true}, {Name: "web", FD: fds[2], Member: true}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, groups := range map[string][]Group{
		"none":               {},
		"too few":            {{"web", addr, fds[:2]}},
		"another number":     {{"web", addr, fds}, {"web", other, others}},
		"without reuseport":  {{"web", addr, []int{single, single, single}}},
		"a unix socket":      {{"web", addr, []int{pathed, pathed, pathed}}},
		"twice the same":     {{"web", addr, []int{fds[0], fds[1], fds[1]}}},
		"one is not ours":    {{"web", other, others[:3]}},
		"not of the relay's": {{"web", other, others}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := NewDirect(DirectConfig{Groups: groups, Proxy: p})
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, ErrGroup) && !(name == "not of the relay's" && errors.Is(err, ErrListener)) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func mustLend(t *testing.T, d *Direct, generation uint64) int {
	t.Helper()
	_, fds, err := d.Lend(context.Background(), generation)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	return fds[0]
}

// Members are lent until there is none, come back, and what waits in the queue
// of one that came back is relayed to the generation that serves.
func TestWhatAGenerationLeavesInItsQueueIsRelayed(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	p, d := newDirect(t, addr, fds)
	first, second := mustLend(t, d, 1), mustLend(t, d, 2)
	if _, _, err := d.Lend(context.Background(), 3); !errors.Is(err, ErrNoMember) {
		t.Fatalf("a third of two members: %v", err)
	}
	if again := mustLend(t, d, 1); again != first {
		t.Fatal("a generation that has a member got another")
	}
	steer := func(generation uint64) {
		t.Helper()
		if err := d.Steer(generation); err != nil || d.Steered() != generation {
			t.Fatal(err, d.Steered())
		}
	}
	steer(1)
	var clients []net.Conn
	for range 50 {
		clients = append(clients, dialTo(t, addr))
	}
	if n, err := d.Waiting(1, "web"); n != 50 || err != nil {
		t.Fatalf("%d wait for generation 1, %v", n, err)
	}
	steer(2)
	r, err := p.NewRoute(2, map[string]net.Addr{"web": d.Reach("web")})
	if err != nil {
		t.Fatal(err)
	}
	p.Switch(r)
	if err, n := d.Count(), d.InFlight(1); n != 50 || err != nil {
		t.Fatalf("%d in flight on generation 1, %v", n, err)
	}
	d.Return(1)
	for range clients { // each comes to generation 2, through the relay
		fd := acceptFrom(t, second)
		if _, err := unix.Write(fd, []byte("2")); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	for _, c := range clients {
		var b [2]byte
		if n, err := c.Read(b[:]); n != 1 || b[0] != '2' {
			t.Fatalf("a client that waited got %q, %v", b[:n], err)
		}
	}
	if _, _, err := d.Lend(context.Background(), 3); err != nil {
		t.Fatalf("the member that came back: %v", err)
	}
	if got := r.Counts().Accepted; got != 50 {
		t.Fatalf("the relay took %d", got)
	}
}

// What is held is served by the relay once it is let go on.
func TestWhatWasHeldIsServedInOrder(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	p, d := newDirect(t, addr, fds)
	member := mustLend(t, d, 1) // from here on the group is held
	var clients []net.Conn
	for i := range 200 {
		c := dialTo(t, addr)
		c.Write([]byte{byte(i)})
		clients = append(clients, c)
	}
	if n, _, err := queueOf(fds[hold]); n != len(clients) || err != nil {
		t.Fatalf("%d are held, %v", n, err)
	}
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	r, err := p.NewRoute(1, map[string]net.Addr{"web": d.Reach("web")})
	if err != nil {
		t.Fatal(err)
	}
	r.KeepOrder()
	p.Switch(r)
	for i := range clients {
		fd := acceptFrom(t, member)
		var b [1]byte
		eventually(t, "its byte", func() bool { n, _ := unix.Read(fd, b[:]); return n == 1 })
		if b[0] != byte(i) {
			t.Fatalf("client %d came as number %d", b[0], i)
		}
		unix.Close(fd)
	}
}

// Steering that is in force is not touched by a Direct that is made anew.
func TestSteeringInForceIsLeftAlone(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, before := newDirect(t, addr, fds)
	mustLend(t, before, 1)
	member, _, err := before.Lend(context.Background(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Steer(2); err != nil {
		t.Fatal(err)
	}
	arrives := func() {
		t.Helper()
		conn := dialTo(t, addr)
		if at := landed(t, fds); len(at) != 1 || at[0] != member {
			t.Fatalf("arrived at %v, not at %d", at, member)
		}
		conn.Close()
	}
	if err := unix.SetNonblock(fds[member], false); err != nil { // as its program wants it
		t.Fatal(err)
	}
	_, d := newDirect(t, addr, fds)
	if _, err := d.Keep(2, member); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Keep(3, member); !errors.Is(err, ErrNoMember) {
		t.Fatalf("a member of another: %v", err)
	}
	if flags, err := unix.FcntlInt(uintptr(fds[member]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Fatalf("O_NONBLOCK was set under a generation's accept: %x, %v", flags, err)
	}
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fds[member]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Fatalf("O_NONBLOCK was set under a generation's accept: %x, %v", flags, err)
	}
	unix.SetNonblock(fds[member], true) // for the test's own accept
	if at := landed(t, fds); len(at) != 2 || at[0] != member || at[1] != member {
		t.Fatalf("what found out where connections go, and the check of the member that is kept, arrived at %v", at)
	}
	arrives()
}

// Several addresses are switched together, or none is.
func TestGroupsAreSwitchedTogether(t *testing.T) {
	var groups []Group
	var listeners []Listener
	for _, ip := range []string{"127.0.0.1", "::1", "127.0.0.2"} {
		addr, fds := membersAt(t, ip, 4, false)
		groups = append(groups, Group{"web", addr, fds})
		for i, fd := range fds {
			listeners = append(listeners, Listener{Name: "web", FD: fd, Member: i > 0})
		}
	}
	p, err := New(Config{Listeners: listeners})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d, err := NewDirect(DirectConfig{Groups: groups, Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { d.Close() }()
	for n := range uint64(2) {
		if _, fds, err := d.Lend(context.Background(), n+1); err != nil || len(fds) != len(groups) {
			t.Fatal(fds, err)
		}
	}
	arrive := func(generation uint64) {
		t.Helper()
		for _, g := range groups {
			c := dialTo(t, g.Address)
			before, err := d.Waiting(generation, "web") // counts the first group's only
			if err != nil || g.Address == groups[0].Address && before != 1 {
				t.Fatalf("%d wait for generation %d, %v", before, generation, err)
			}
			if at := landed(t, g.Members); len(at) != 1 || at[0] != d.tallies[generation].member {
				t.Fatalf("%s: arrived at %v", g.Address, at)
			}
			c.Close()
		}
	}
	for _, fds := range groups {
		for _, fd := range fds.Members {
			unix.SetNonblock(fd, true)
		}
	}
	for _, n := range []uint64{1, 2, 1} {
		if err := d.Steer(n); err != nil {
			t.Fatal(err)
		}
		arrive(n)
	}
	// The last group takes no other program any more: socket(7), SO_LOCK_FILTER.
	if err := unix.SetsockoptInt(groups[2].Members[0], unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		t.Fatal(err)
	}
	if err := d.Steer(2); !errors.Is(err, unix.EPERM) {
		t.Fatalf("got %v", err)
	}
	arrive(1)
	if d.Steered() != 1 {
		t.Fatalf("steered to %d", d.Steered())
	}
	// The same for the next one, which was told of no steering: it goes back to what
	// it has found.
	members := map[uint64]int{1: d.tallies[1].member, 2: d.tallies[2].member}
	d.Close()
	d, err = NewDirect(DirectConfig{Groups: groups, Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	for n, m := range members {
		if _, err := d.Keep(n, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Steer(2); !errors.Is(err, unix.EPERM) {
		t.Fatalf("got %v", err)
	}
	for _, g := range groups { // what has looked
		landed(t, g.Members)
	}
	arrive(1)
}

func dialTo(t testing.TB, addr net.Addr) duplex {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return ready(t, c)
}

// acceptFrom waits for a connection of a non-blocking listener.
func acceptFrom(t testing.TB, fd int) int {
	t.Helper()
	got := -1
	eventually(t, "a connection", func() bool {
		var err error
		got, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
		return err == nil
	})
	return got
}
