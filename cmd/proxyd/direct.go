package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// The two paths, as status shows them, and the choice.
const (
	pathAuto   = "auto"
	pathRelay  = "relay"
	pathDirect = "direct"
)

// directPath decides which generation gets its clients straight from the kernel
// and which through the relay, and remembers why.
type directPath struct {
	direct *proxy.Direct // nil: the listeners are not steered
	why    string        // what keeps every new generation on the relay; empty: nothing
	moves  bool          // the driver can run the current release once more beside itself
	groups []*listenerGroup
	kept   []int // descriptors that generations hold for the next proxyd
	log    hclog.Logger
	// counting has what is in flight counted, by whoever may wait for it: not by the
	// supervisor.
	counting *counting
	// switched is told of each generation that new connections were steered to, and
	// of one of its sockets. The supervisor waits for it.
	switched func(id uint64, fd int)
	flush    func() // what switched has begun
	reset    bool   // something sets O_NONBLOCK of members that generations have: see fit.go

	mu      sync.Mutex
	blocks  bool                     // the program that was proven last counts on accept(2) to wait
	reasons map[uint64]string        // why a generation is on the relay; empty: it is not
	formers map[uint64]*proxy.Former // of stranded generations
	apart   map[string]bool          // listeners' addresses that are steered away from sockets of before
}

func newDirectPath(log hclog.Logger) *directPath {
	p := &directPath{reasons: map[uint64]string{}, formers: map[uint64]*proxy.Former{}, apart: map[string]bool{}, log: log}
	p.counting = newCounting(p.count)
	return p
}

// openDirect makes the direct path of the listeners that d.proxy serves. Where
// it cannot be, it says so in why, or, where the config insists, in the error.
func (d *daemon) openDirect() error {
	groups := groupsOf(d.listeners)
	why, err := d.config.relayReason(groups)
	if err != nil {
		return err
	}
	d.direct.why, d.direct.groups = why, groups
	d.direct.moves = d.units == nil || strings.Contains(d.config.Backend.Unit, "{generation}")
	d.direct.reset = len(d.listeners) > 0 && d.listeners[0].Source == activation.SourceSystemd
	var steered []proxy.Group
	var members []int
	for _, g := range groups {
		tcp, _ := g.address.(*net.TCPAddr)
		fds := g.fds()
		steered = append(steered, proxy.Group{Name: g.name, Address: tcp, Members: fds})
		members = append(members, fds[1:]...)
		if len(fds) > 1 && g.members[0].Source == activation.SourceProxyd {
			d.direct.kept = append(d.direct.kept, fds...)
		}
	}
	if len(members) == 0 {
		return nil
	}
	d.direct.direct, err = proxy.NewDirect(proxy.DirectConfig{
		Groups: steered, Proxy: d.proxy, Log: d.direct.log,
		Before: d.direct.heldFromBefore(d.runtimeDir), Whose: whoHas,
	})
	if err == nil {
		return nil
	}
	if d.config.Backend.Path == pathDirect {
		return fmt.Errorf("backend.path: \"direct\" cannot be: %w", err)
	}
	// The kernel spreads clients over all members, so the relay takes all.
	d.direct.why = err.Error()
	return d.proxy.Serve(true, members...)
}

// memberTime bounds the connects that prove a member's place.
const memberTime = 10 * time.Second

// lend gives a generation sockets of its own in the listeners' groups; where it
// is to be served by the relay, none and the reason. They stay borrowed.
func (p *directPath) lend(id uint64, config *Config) (handed []activation.Listener, member int, why string) {
	why = p.why
	if p.direct != nil && config.BindsItself() { // what an earlier config has planned
		why = reasonBinds
	}
	if p.direct != nil && why == "" && p.keepsOff(config) {
		why = reasonBlocks
	}
	if p.direct != nil && why == "" {
		ctx, cancel := context.WithTimeout(context.Background(), memberTime)
		defer cancel()
		member, fds, err := p.direct.Lend(ctx, id)
		if err == nil {
			p.note(id, "")
			return p.listeners(fds), member, ""
		}
		if !errors.Is(err, proxy.ErrNoMember) {
			p.log.Warn("cannot lend a member", "generation", id, "error", err)
		}
		why = lendReason(err)
	}
	return nil, 0, why
}

// lendReason says why a generation is on the relay that was lent no member. Only
// what is wrong with the groups lasts; all else, as a full machine, passes, and
// the generation moves then.
func lendReason(err error) string {
	if errors.Is(err, proxy.ErrGroup) {
		return err.Error()
	}
	return reasonNoMember
}

// relayed notes that a generation is on the relay.
func (p *directPath) relayed(id uint64, why string) {
	if p.note(id, why) {
		p.log.Info("served by the relay", "generation", id, "reason", why)
	}
}

// adopted notes that an adopted generation is on the relay, for what was noted
// when it was started.
func (p *directPath) adopted(id uint64, config *Config, why string) {
	switch {
	case config.BindsItself():
		p.note(id, reasonBinds)
	case p.direct != nil && p.why == "" && (why == reasonNoMember || why == reasonBlocks):
		p.note(id, why)
	case p.direct != nil && p.why == "":
		p.note(id, "it was started on the relay")
	}
}

// wish tells whether a generation would be on the direct path if it were started
// now: it is relayed for want of a member only, and there is one.
func (p *directPath) wish(id uint64) bool {
	return p.isMoving(id) && p.direct.Free()
}

// isMoving tells whether a generation moves to the direct path once it can.
func (p *directPath) isMoving(id uint64) bool {
	if p.direct == nil || p.why != "" || !p.moves {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reasons[id] == reasonNoMember && !p.blocks || p.reasons[id] == reasonBlocked
}

// note remembers the reason of a generation, and says whether it is a new one.
func (p *directPath) note(id uint64, why string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, known := p.reasons[id]
	p.reasons[id] = why
	return !known || was != why
}

func (p *directPath) listeners(fds []int) (list []activation.Listener) {
	for i, name := range p.direct.Names() {
		list = append(list, activation.Listener{Name: name, FD: fds[i], Addr: p.direct.Reach(name)})
	}
	return list
}

// release takes back what was lent.
func (p *directPath) release(id uint64) {
	p.unstrand(id)
	if p.direct != nil {
		p.direct.Return(id)
	}
}

// recheck is for sockets that somebody had who may have changed them.
func (p *directPath) recheck() {
	if p.direct != nil {
		p.direct.Recheck()
	}
}

// revive has the sockets of a generation that has a member listen again where its last
// run shut them down.
func (p *directPath) revive(id uint64) error {
	if !p.has(id) {
		return nil
	}
	return p.direct.Revive(id)
}

// forget drops what status shows of a generation.
func (p *directPath) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reasons, id)
}

// reach connects to a generation that has a member; ok is false for any other.
func (p *directPath) reach(ctx context.Context, id uint64, listener string) (conn net.Conn, ok bool, err error) {
	if !p.has(id) {
		return nil, false, nil
	}
	conn, err = p.direct.Dial(ctx, id, listener)
	return conn, true, err
}

// has says whether the kernel gives a generation its clients.
func (p *directPath) has(id uint64) bool { return p.direct != nil && p.direct.Has(id) }

// of gives the path of a generation, and why it is the relay.
func (p *directPath) of(id uint64) (path, why string) {
	if p.has(id) {
		return pathDirect, ""
	}
	moving := p.isMoving(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	why, known := p.reasons[id]
	switch {
	case moving:
		return pathRelay, why + "; moves by itself"
	case known && why == "": // it was, while it ran
		return pathDirect, ""
	case known:
		return pathRelay, why
	}
	return pathRelay, p.why
}

func (p *directPath) close() {
	p.closeFormers()
	if p.direct != nil {
		p.direct.Close()
	}
	if p.flush != nil {
		p.flush()
	}
}

// steer sends new connections to a generation, or with 0 to the relay. A change
// that the kernel refuses, for want of memory, is tried again: until it is made
// new connections go where they went.
func (p *directPath) steer(id uint64) {
	if p.direct == nil {
		return
	}
	pause := time.Millisecond
	for {
		err := p.direct.Steer(id)
		if err == nil {
			return
		}
		if errors.Is(err, proxy.ErrNoMember) {
			p.log.Error("cannot steer new connections", "generation", id, "error", err)
			return
		}
		p.log.Error("cannot steer new connections, trying again", "generation", id, "error", err)
		time.Sleep(pause)
		pause = min(2*pause, time.Second)
	}
}

// tell tells of a switch, once all of it is done.
func (p *directPath) tell(id uint64) {
	if p.direct == nil {
		return
	}
	if fd, ok := p.direct.Socket(id); ok {
		p.switched(id, fd)
	}
}

// cut ends the connections of a generation, as far as that is permitted.
func (p *directPath) cut(id uint64) {
	var err error
	if f := p.former(id); f != nil {
		err = f.Cut()
	} else if p.has(id) {
		err = p.direct.Cut(id)
	}
	if err != nil {
		p.log.Warn("cannot cut connections, they end with the processes", "generation", id, "error", err)
	}
}

// inFlight gives the connections of a generation as they were last counted; 0
// where it has no member.
func (p *directPath) inFlight(id uint64) uint64 {
	if f := p.former(id); f != nil {
		return f.InFlight()
	}
	if !p.has(id) {
		return 0
	}
	return p.direct.InFlight(id)
}

// count brings the counts up to date, for counting.
func (p *directPath) count() {
	p.countFormers()
	if p.direct == nil {
		return
	}
	if err := p.direct.Count(); err != nil {
		p.log.Warn("cannot count connections", "error", err)
	}
}
