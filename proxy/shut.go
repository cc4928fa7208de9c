package proxy

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What becomes of a member that was shut down, see order.go:
//
//   - Who notices is an epoll of our own, as the kernel reports EPOLLHUP then. The
//     order is put right at once. Until then no client comes to a generation that is
//     not current: the last member, which is moved into the place, is never lent
//     where there are more than three. Where several left at once their order is
//     not known, so each index is tried afterwards.
//   - A member that is nobody's listens again at once.
//   - One that is lent does not, while its generation has a process: whoever shut
//     it down wants no clients any more, and a thread that is to be woken out of
//     accept(2) would go on sleeping there if it listened before it has looked. It
//     listens again before the generation's next start (Revive), or once it is
//     returned.
//   - Where it is the current generation's, clients wait in the queue of the hold
//     member meanwhile, and the relay takes none of them (Proxy.bar): it would send
//     them to where they wait.

// errDown: the member of a generation was shut down.
var errDown = errors.New("its listening socket was shut down")

// hangups reports which members were shut down.
type hangups struct {
	epoll int
	ended chan struct{}
	mu    sync.Mutex
	wake  int // -1: closed
}

// watchHangups starts the goroutine that follows the members.
func (d *Direct) watchHangups() error {
	h := &hangups{epoll: -1, wake: -1, ended: make(chan struct{})}
	var err error
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		h.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, h.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	for i, g := range d.groups {
		for m, fd := range g.fds {
			if err == nil { // EPOLLHUP need not be asked for: epoll_ctl(2)
				err = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLET & 0xffffffff, Fd: int32(i), Pad: int32(m)})
			}
		}
	}
	if err != nil {
		h.close()
		return fmt.Errorf("watch members: %w", err)
	}
	d.hangups = h
	d.proxy.astray = d.wakeFollow
	go d.follow()
	return nil
}

func (h *hangups) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fd := range []int{h.epoll, h.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	h.epoll, h.wake = -1, -1
}

// stop waits for follow, which was told to end.
func (h *hangups) stop() {
	<-h.ended
	h.close()
}

// follow takes note of members that are shut down, and looks where the kernel leads
// when the relay has met itself. It ends with Close, which waits for it.
func (d *Direct) follow() {
	h := d.hangups
	defer close(h.ended)
	events := make([]unix.EpollEvent, 64)
	pause := firstAstray
	for {
		wait := -1
		if d.proxy.barred.Load()&barAstray != 0 {
			wait = int(pause.Milliseconds())
		}
		n, err := unix.EpollWait(h.epoll, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			d.log.Error("cannot watch the members of the groups", "error", err)
			return
		}
		select {
		case <-d.quit:
			return
		default:
		}
		for _, e := range events[:max(0, n)] {
			if e.Fd < 0 {
				var b [8]byte
				_, _ = unix.Read(h.wake, b[:])
			}
		}
		d.mu.Lock()
		d.noticeDown()
		unsure := d.jumbled
		d.jumbled = false
		d.mu.Unlock()
		barred := d.proxy.barred.Load()
		astray := barred&barAstray != 0 && barred&barDown == 0
		if unsure || astray {
			err := d.prove()
			if err != nil {
				d.log.Warn("cannot check the order of members", "error", err)
			}
			d.mu.Lock()
			if errors.Is(err, ErrGroup) && d.broken == nil {
				d.broken = err
				d.log.Error("the direct path is not used for new generations", "error", err)
			}
			d.tidy()
			d.mu.Unlock()
		}
		switch {
		case !astray:
			pause = firstAstray
		case d.leadsRight():
			d.proxy.proven.Add(1)
			d.proxy.bar(barAstray, false)
			pause = firstAstray
		default:
			pause = min(2*pause, lastAstray)
		}
	}
}

// While the relay meets itself clients wait, so it is looked again soon.
const (
	firstAstray = 10 * time.Millisecond
	lastAstray  = time.Second
)

// wakeFollow has follow look soon; after Close it does nothing.
func (d *Direct) wakeFollow() {
	h := d.hangups
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wake >= 0 {
		one := [8]byte{1}
		_, _ = unix.Write(h.wake, one[:])
	}
}

// noticeDown takes note of what was shut down, or listens again, since it was looked
// last. mu is held.
func (d *Direct) noticeDown() {
	changed := false
	for _, g := range d.groups {
		gone := 0
		for m, fd := range g.fds {
			switch alive, listens := g.alive(m), isListening(fd); {
			case alive && !listens:
				gone++
				if err := g.lost(m); err != nil {
					d.log.Error("new connections may go astray", "error", err)
				}
				tell := d.log.Debug // many programs do it when they end
				if m == d.to {
					tell = d.log.Warn
				}
				tell("a listening socket was shut down", "listener", g.name, "member", m, "generation", d.members[m].generation)
			case !alive && listens: // by whoever shut it down
				gone++
				d.mustListen(g, m)
			default:
				continue
			}
			changed = true
		}
		// Nobody knows which was first, or where those of others are now.
		d.jumbled = d.jumbled || gone > 1 || gone > 0 && g.others.Load() > 0
	}
	if changed {
		d.settleDown()
		if d.jumbled {
			d.wakeFollow()
		}
	}
}

// settleDown has members listen again that are nobody's, and keeps the relay from
// clients that are for one that does not. mu is held.
func (d *Direct) settleDown() {
	for m := range d.members {
		if d.members[m].generation == 0 {
			d.mustRevive(m)
		}
	}
	d.bar(d.to)
	d.tidy()
}

// mustRevive has a member listen again in every group where it does not. mu is held.
func (d *Direct) mustRevive(member int) {
	for _, g := range d.groups {
		d.mustListen(g, member)
	}
}

func (d *Direct) mustListen(g *group, member int) {
	if err := d.listenAgain(g, member); err != nil {
		d.log.Error("a member is lost", "error", err)
	}
}

// listenAgain makes a member that has left a group one again. Where others are
// members too nobody knows then who is where. mu is held.
func (d *Direct) listenAgain(g *group, member int) error {
	if g.alive(member) {
		return nil
	}
	if g.others.Load() > 0 {
		d.jumbled = true
		d.wakeFollow()
	}
	return g.listenAgain(member)
}

// bar keeps the relay from clients while a member that is to be steered to is down.
// mu is held.
func (d *Direct) bar(to int) {
	down := false
	for _, g := range d.groups {
		down = down || to > hold && !g.alive(to)
	}
	was := d.proxy.barred.Load()
	d.proxy.bar(barDown, down)
	if !down && was&barDown != 0 && was&barAstray != 0 {
		d.wakeFollow() // now it can be put right
	}
}

// Revive has the member of a generation listen again where its last run shut it
// down. It comes before its next start, when no process of it is left.
func (d *Direct) Revive(generation uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noticeDown()
	t := d.tallies[generation]
	if t == nil {
		return fmt.Errorf("revive member of generation %d: %w", generation, ErrNoMember)
	}
	for _, g := range d.groups {
		if err := d.listenAgain(g, t.member); err != nil {
			return err
		}
	}
	d.tidy()
	d.bar(d.to)
	return nil
}

// tidy puts members back to their places, where that touches nobody. mu is held.
func (d *Direct) tidy() {
	if d.jumbled {
		return
	}
	for _, g := range d.groups {
		if g.others.Load() > 0 { // the last one, which is moved, may be somebody else's
			continue
		}
		err := g.tidy(func(m int) bool {
			if d.members[m].generation != 0 || d.members[m].back != nil || len(d.members[m].late) > 0 {
				return false
			}
			n, _, err := queueOf(g.fds[m])
			return err == nil && n == 0
		})
		if err != nil {
			d.log.Warn("the members of a group are in another order than they were made", "error", err)
		}
	}
}
