package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

var (
	// ErrGroup: sockets that cannot be steered as one group.
	ErrGroup = errors.New("not a group of SO_REUSEPORT sockets of our own")
	// ErrNoMember: every member belongs to a generation, or has clients in its
	// queue that wait for another.
	ErrNoMember = errors.New("no free member")
)

// Group is the members of one address: TCP sockets that listen there with
// SO_REUSEPORT, in the order in which they began to. The first is the hold
// member, which no generation gets; the relay accepts from it.
type Group struct {
	Name    string // of the listener; several groups may have the same
	Address *net.TCPAddr
	Members []int // borrowed
}

// leastMembers: one to hold, one that serves, one for the next generation.
const leastMembers = 3

// DirectConfig says what a Direct steers.
type DirectConfig struct {
	Groups []Group // all with the same number of members
	Proxy  *Proxy  // has every member as a Listener, all but the first ones with Member
	Log    hclog.Logger
}

// Direct is the direct path. A generation is lent one member of each group and
// accepts from it by itself; Steer sends new connections to the members of one
// generation, or to the hold members. All methods are safe for concurrent use.
//
// The relay of DirectConfig.Proxy takes what waits in the queues of members
// that belong to nobody: those that were held, and those of a generation that
// was given up. So its route must never lead to a group that is steered to the
// hold member: switch the route away first, then steer.
type Direct struct {
	log    hclog.Logger
	proxy  *Proxy
	groups []*group

	mu      sync.Mutex
	to      int // member that is steered to; -1: as it was found
	members []lending
	tallies map[uint64]*tally
	turn    uint64 // counts the changes of steering
	broken  error  // why no member is lent any more

	counting sync.Mutex // one look at the sockets at a time; never taken under mu
	diag     *diag
	seen     snapshot
	kick     chan struct{}
	quit     chan struct{}
	ended    chan struct{}
}

// lending is what is known of one member.
type lending struct {
	generation uint64 // 0: nobody's
	left       uint64 // turn at which it was last steered away from
}

// NewDirect checks the groups and starts the goroutine that counts what drains.
// It changes no steering: what is in force stays so until the first Steer or
// Lend. Close ends it; members stay open.
func NewDirect(cfg DirectConfig) (*Direct, error) {
	d := &Direct{
		log: cfg.Log, proxy: cfg.Proxy, to: -1, tallies: map[uint64]*tally{},
		kick: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	if d.log == nil {
		d.log = hclog.NewNullLogger()
	}
	if len(cfg.Groups) == 0 || cfg.Proxy == nil {
		return nil, fmt.Errorf("steer listeners: %w: no group, or no relay", ErrGroup)
	}
	for _, c := range cfg.Groups {
		g, err := newGroup(c)
		if err != nil {
			return nil, fmt.Errorf("steer listener %q at %s: %w", c.Name, c.Address, err)
		}
		if n := len(cfg.Groups[0].Members); len(g.fds) != n {
			return nil, fmt.Errorf("steer listener %q at %s: %w: it has %d members, another has %d", c.Name, c.Address, ErrGroup, len(g.fds), n)
		}
		d.groups = append(d.groups, g)
	}
	var err error
	if d.diag, err = openDiag(); err != nil {
		return nil, err
	}
	for _, g := range d.groups {
		if err := d.alone(g); err != nil {
			d.diag.close()
			return nil, err
		}
	}
	d.members = make([]lending, len(d.groups[0].fds))
	for _, g := range d.groups {
		if err := d.proxy.Serve(false, g.fds[1:]...); err != nil { // it must know them
			d.diag.close()
			return nil, err
		}
	}
	go d.watch()
	return d, nil
}

func newGroup(c Group) (*group, error) {
	if n := len(c.Members); n < leastMembers || n > mostMembers {
		return nil, fmt.Errorf("%w: %d members, it takes %d to %d", ErrGroup, n, leastMembers, mostMembers)
	}
	g := &group{name: c.Name, addr: c.Address, fds: c.Members, to: -1}
	for i, fd := range c.Members {
		for _, want := range []struct{ opt, value int }{
			{unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_ACCEPTCONN, 1}, {unix.SO_REUSEPORT, 1},
		} {
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.opt)
			if err != nil || n != want.value {
				return nil, fmt.Errorf("%w: descriptor %d does not listen, or without SO_REUSEPORT", ErrGroup, fd)
			}
		}
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || family != unix.AF_INET && family != unix.AF_INET6 || i > 0 && family != g.family {
			return nil, fmt.Errorf("%w: descriptor %d is not TCP, or of another family", ErrGroup, fd)
		}
		g.family = family
	}
	if g.family == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(c.Members[0], unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		g.dual = err == nil && only == 0
	}
	return g, nil
}

// alone tags the members, and makes sure that the tags can be read back and that
// the group has no members but the known ones: the kernel counts the others as
// well, and an index would name one of them.
func (d *Direct) alone(g *group) error {
	known := map[uint64]int{}
	for i, fd := range g.fds {
		if err := tag(fd, i); err != nil {
			return err
		}
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			return fmt.Errorf("read socket cookie: %w", err)
		}
		known[cookie] = i
	}
	strangers, wrong := 0, 0
	err := d.diag.each(g.family, g.addr.Port, 1<<tcpListen, func(s *socketSeen) {
		if i, ours := known[s.cookie]; ours {
			if int(s.tag) != i {
				wrong++
			}
		} else if s.local() == g.addr.AddrPort().Addr().Unmap().WithZone("") {
			strangers++
		}
	})
	if err == nil && len(known) != len(g.fds) {
		err = fmt.Errorf("%w: the same socket is there twice", ErrGroup)
	}
	if err == nil && strangers > 0 {
		err = fmt.Errorf("%w: %d sockets of somebody else listen there as well", ErrGroup, strangers)
	}
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%w: %w", ErrGroup, errUntold)
	}
	if err != nil {
		return fmt.Errorf("steer listener %q at %s: %w", g.name, g.addr, err)
	}
	return nil
}

// fds gives the descriptors of one member, by group.
func (d *Direct) fds(member int) []int {
	var all []int
	for _, g := range d.groups {
		all = append(all, g.fds[member])
	}
	return all
}

// Members is how many generations can have one.
func (d *Direct) Members() int { return len(d.members) - 1 }

// Free tells whether there is a member that is nobody's, for Lend to try.
func (d *Direct) Free() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken == nil && slices.ContainsFunc(d.members[1:], func(m lending) bool { return m.generation == 0 })
}

// Lend gives a generation a member of its own: its number, for Keep, and its
// descriptors, by group, which stay borrowed. What the relay took from it is
// done with before, its queue is empty, and a connection that was sent to it has
// arrived. Where the groups are not steered from here yet, new connections are
// held from now on. A generation that has a member gets the same again.
func (d *Direct) Lend(ctx context.Context, generation uint64) (member int, fds []int, err error) {
	tried := map[int]bool{}
	for {
		member, lent, err := d.reserve(generation, tried)
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
			n, err = d.queued(member)
		}
		if err == nil && n == 0 {
			if err = d.check(ctx, member); err == nil {
				d.mu.Lock()
				d.tallies[generation] = &tally{generation: generation, member: member, left: never}
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
	// A handshake that began before a member was left may end much later: so
	// the one that was left first.
	for m := 1; m < len(d.members); m++ {
		if d.members[m].generation == 0 && !tried[m] && (member == 0 || d.members[m].left < d.members[member].left) {
			member = m
		}
	}
	if member == 0 {
		return 0, false, ErrNoMember
	}
	d.members[member].generation = generation
	return member, false, nil
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
		if err := g.check(ctx, member, func(fd int) { d.proxy.takeOver(fd, g.fds[hold]) }); err != nil {
			return err
		}
	}
	return nil
}

// queued counts what waits in the queues of a member.
func (d *Direct) queued(member int) (int, error) {
	n := 0
	for _, g := range d.groups {
		q, err := queueOf(g.fds[member])
		if err != nil {
			return 0, err
		}
		n += q
	}
	return n, nil
}

// queueOf counts the connections in a listening socket's queue, which are made
// but not accepted: tcp_get_info in net/ipv4/tcp.c.
func queueOf(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	return int(info.Unacked), nil
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
	d.members[t.member].generation = 0
	for _, w := range t.waiters {
		close(w.done)
	}
	t.waiters = nil
	if d.to == t.member {
		if err := d.steer(hold); err != nil {
			d.log.Error("new connections go to nobody", "error", err)
		}
	}
	if err := d.proxy.Serve(true, d.fds(t.member)...); err != nil {
		d.log.Error("clients that wait in a queue are not served", "error", err)
	}
}

// Has says whether a generation has a member.
func (d *Direct) Has(generation uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tallies[generation] != nil
}

// Socket gives the descriptor of a generation's member of the first group.
func (d *Direct) Socket(generation uint64) (fd int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		return -1, false
	}
	return d.groups[0].fds[t.member], true
}

// Steer makes new connections go to a generation, with 0 to the hold members.
// When it returns, none that begins later goes elsewhere. All groups are
// switched, or on an error none.
func (d *Direct) Steer(generation uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	to := hold
	if generation != 0 {
		t := d.tallies[generation]
		if t == nil {
			return fmt.Errorf("steer to generation %d: %w", generation, ErrNoMember)
		}
		to = t.member
	}
	return d.steer(to)
}

func (d *Direct) steer(to int) error {
	for i, g := range d.groups {
		err := g.steer(to)
		if err == nil {
			continue
		}
		for _, g := range d.groups[:i] {
			if back := g.steer(max(d.to, hold)); back != nil {
				err = errors.Join(err, back)
			}
		}
		return err
	}
	if to == d.to {
		return nil
	}
	if d.to < 0 {
		if err := d.begin(); err != nil {
			return err
		}
	}
	d.turn++
	if d.to >= 0 {
		d.members[d.to].left = d.turn
	}
	for _, t := range d.tallies {
		switch t.member {
		case to:
			t.left = 0
		case d.to:
			t.left = d.turn
		}
	}
	d.to = to
	d.wake()
	return nil
}

// begin checks every member and has the relay serve those that are nobody's. It
// is done at the first change of steering: only then is it known which members
// generations have from before. O_NONBLOCK is the socket's, so it must not be
// touched while a generation has it.
func (d *Direct) begin() error {
	if err := d.checkAll(); err != nil && d.broken == nil {
		d.broken = err
		d.log.Error("the direct path is not used for new generations", "error", err)
	}
	for m := 1; m < len(d.members); m++ {
		if d.members[m].generation == 0 {
			if err := d.proxy.Serve(true, d.fds(m)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAll compares the index of each member with the kernel's. One that is a
// generation's gets a connection that is closed at once. Where clients wait in a
// free one it is left until it is lent.
func (d *Direct) checkAll() error {
	diag, err := openDiag()
	if err != nil {
		return err
	}
	defer diag.close()
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	for m := 1; m < len(d.members); m++ {
		for _, g := range d.groups {
			if d.members[m].generation != 0 {
				err = g.checkLent(ctx, diag, m)
			} else if n, _ := queueOf(g.fds[m]); n == 0 {
				err = g.check(ctx, m, func(fd int) { d.proxy.takeOver(fd, g.fds[hold]) })
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Steered gives the generation that new connections go to, 0 where they are
// held or nothing was steered from here.
func (d *Direct) Steered() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to <= hold {
		return 0
	}
	return d.members[d.to].generation
}

// Dial connects to a generation on a listener, whether or not new connections
// go there.
func (d *Direct) Dial(ctx context.Context, generation uint64, listener string) (net.Conn, error) {
	g, member, err := d.find(generation, listener)
	if err != nil {
		return nil, fmt.Errorf("dial generation %d: %w", generation, err)
	}
	return g.dial(ctx, member)
}

// Waiting counts the connections in the queue of a generation's listener.
func (d *Direct) Waiting(generation uint64, listener string) (int, error) {
	g, member, err := d.find(generation, listener)
	if err != nil {
		return 0, err
	}
	return queueOf(g.fds[member])
}

func (d *Direct) find(generation uint64, listener string) (*group, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[generation]
	if t == nil {
		return nil, 0, ErrNoMember
	}
	for _, g := range d.groups {
		if g.name == listener {
			return g, t.member, nil
		}
	}
	return nil, 0, fmt.Errorf("listener %q: %w", listener, ErrNoAddress)
}

// Names gives the name of each group's listener, in the order of the
// descriptors that Lend gives.
func (d *Direct) Names() []string {
	var names []string
	for _, g := range d.groups {
		names = append(names, g.name)
	}
	return names
}

// Reach gives the address at which a listener is reached from this machine.
func (d *Direct) Reach(listener string) *net.TCPAddr {
	for _, g := range d.groups {
		if g.name == listener {
			return g.reach()
		}
	}
	return nil
}

// Close ends the counting. Steering stays in force; what is lent stays lent.
func (d *Direct) Close() {
	close(d.quit)
	<-d.ended
	d.diag.close()
}
