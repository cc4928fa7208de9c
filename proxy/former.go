package proxy

import (
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Former is what is left of the direct path of a generation whose sockets are
// members of no group any more: the address is another by now, or systemd has
// opened its sockets anew. No descriptor of it is here, and nobody steers there.
// But what it has in flight the kernel tells by the tag as before. Only what there
// was at the first looks counts: those who connect to an address later that is not
// the listener's any more could keep it for ever.
type Former struct {
	d          *Direct
	generation uint64

	mu     sync.Mutex // whoever asks the kernel, and Close
	closed bool
}

// NewFormer starts to count what a generation had that was lent a member, at the
// addresses of the groups. No other socket that listens there may have the member's
// tag by now, see Apart. Close ends it.
func NewFormer(generation uint64, member int, addresses []*net.TCPAddr, log hclog.Logger) (*Former, error) {
	if member <= hold || member >= mostMembers || len(addresses) == 0 {
		return nil, fmt.Errorf("count what generation %d has: %w", generation, ErrNoMember)
	}
	if log == nil {
		log = hclog.NewNullLogger()
	}
	d := &Direct{
		log: log, former: true, members: make([]lending, member+1), turn: 1,
		tallies: map[uint64]*tally{generation: {generation: generation, member: member, left: 1}},
		kick:    make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	for _, a := range addresses {
		d.groups = append(d.groups, &group{addr: a, family: familyOf(a)})
	}
	var err error
	if d.diag, err = openDiag(); err != nil {
		return nil, err
	}
	go d.watch()
	return &Former{d: d, generation: generation}, nil
}

// familyOf gives the family of a socket that is bound to addr.
func familyOf(addr *net.TCPAddr) int {
	if addr.IP.To4() != nil {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// InFlight gives its connections as they were last counted.
func (f *Former) InFlight() uint64 { return f.d.InFlight(f.generation) }

// Count counts them now.
func (f *Former) Count() error { return f.unlessClosed(f.d.Count) }

// Drained gives a channel that is closed when none is left.
func (f *Former) Drained() <-chan struct{} { return f.d.Drained(f.generation, nil) }

// Cut is Direct.Cut.
func (f *Former) Cut() error {
	return f.unlessClosed(func() error { return f.d.Cut(f.generation) })
}

func (f *Former) unlessClosed(ask func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	return ask()
}

// Close ends the counting, and closes what Drained gave.
func (f *Former) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.d.mu.Lock()
	for _, t := range f.d.tallies {
		t.release()
	}
	f.d.mu.Unlock()
	f.d.Close()
}
