package proxy

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
)

var (
	// ErrGroup: sockets that cannot be steered as one group.
	ErrGroup = errors.New("not a group of SO_REUSEPORT sockets of our own")
	// ErrNoMember: every member belongs to a generation, or has clients in its
	// queue that wait for another, or handshakes that began for another.
	ErrNoMember = errors.New("no free member")
)

// DirectConfig says what a Direct steers.
type DirectConfig struct {
	Groups []Group // all with the same number of members
	Proxy  *Proxy  // has every member as a Listener, all but the first ones with Member
	Log    hclog.Logger
	// Before: the same sockets were the groups of another Direct before, and
	// generations hold some of them. Whoever else listens there came later.
	Before bool
	// Whose names the processes that have a socket with an inode, for the log. It is
	// called seldom. nil: nobody knows.
	Whose func(inode uint32) string
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
	former bool // the groups are not steered here, see Former

	mu      sync.Mutex
	to      int // member that is steered to; -1: as it was found
	members []lending
	tallies map[uint64]*tally
	turn    uint64 // counts the changes of steering
	broken  error  // why no member is lent any more

	whose  func(inode uint32) string
	unsure bool // something happened since the last recheck

	proving  sync.Mutex // one try of the indexes at a time, as each changes tags; mu is not taken under it
	counting sync.Mutex // one look at the sockets at a time; never taken under mu
	diag     *diag
	seen     snapshot
	kick     chan struct{}
	quit     chan struct{}
	ended    chan struct{}
	hangups  *hangups
	jumbled  bool // under mu: the order of some group's members is not known
}

// NewDirect checks the groups and starts the goroutine that counts what drains.
// It changes no steering: what is in force stays so until the first Steer or
// Lend. Close ends it; members stay open.
func NewDirect(cfg DirectConfig) (*Direct, error) {
	d := &Direct{
		log: cfg.Log, proxy: cfg.Proxy, whose: cfg.Whose, to: -1, tallies: map[uint64]*tally{},
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
	d.diag.tag = int8(tagMask(len(d.groups[0].fds)))
	for _, g := range d.groups {
		if err := d.alone(g, cfg.Before); err != nil {
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
	if err := d.watchHangups(); err != nil {
		d.diag.close()
		return nil, err
	}
	go d.watch()
	return d, nil
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
	d.noticeDown()
	d.bar(to)
	defer func() { d.bar(d.to) }()
	var found []int // where new connections go, where that is not known from here
	if d.to < 0 {
		found = d.recognise(to)
	}
	for i, g := range d.groups {
		err := g.steer(to)
		if err == nil {
			continue
		}
		for i, g := range d.groups[:i] {
			was := max(d.to, hold)
			if d.to < 0 && found[i] != untold {
				was = found[i]
			}
			if back := g.steer(was); back != nil {
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
	d.unsure = true
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

// begin checks every member and has the relay serve those that are nobody's, to
// which handshakes may still come that somebody else has steered there. It
// is done at the first change of steering: only then is it known which members
// generations have from before. O_NONBLOCK is the socket's, so it must not be
// touched while a generation has it. A check that could not be made says nothing
// of the groups: it breaks nothing.
func (d *Direct) begin() error {
	err := d.checkAll()
	if errors.Is(err, ErrGroup) { // members left while nobody steered
		if err = d.prove(); err == nil {
			err = d.checkAll()
		}
	}
	switch {
	case errors.Is(err, ErrGroup) && d.broken == nil:
		d.broken = err
		d.log.Error("the direct path is not used for new generations", "error", err)
	case err != nil:
		d.log.Warn("cannot check the members of the groups", "error", err)
	}
	for m := 1; m < len(d.members); m++ {
		if d.members[m].generation == 0 {
			d.members[m].back = &comeBack{}
			if err := d.proxy.Serve(true, d.fds(m)...); err != nil {
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

// Close ends the counting. Steering stays in force; what is lent stays lent.
func (d *Direct) Close() {
	close(d.quit)
	if d.hangups != nil {
		d.wakeFollow()
		d.hangups.stop()
	}
	<-d.ended
	d.diag.close()
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

// fds gives the descriptors of one member, by group.
func (d *Direct) fds(member int) []int {
	var all []int
	for _, g := range d.groups {
		all = append(all, g.fds[member])
	}
	return all
}
