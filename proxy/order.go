package proxy

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A member leaves its group when it is closed, and also when anybody who has it
// calls shutdown(2) on it, as programs do to wake a thread out of accept(2): it
// is the socket that does not listen any more, so no duplicate helps. The kernel
// then resets what is in its queue, and moves the last member into its place
// (tcp_disconnect in net/ipv4/tcp.c, reuseport_stop_listen_sock in
// net/core/sock_reuseport.c). listen(2) makes it a member again, the last one.
//
// So the index of a member is not its number. A group knows the order that the
// kernel has, and every program is made from it.

// index gives the kernel's index of a member; -1 where it does not listen. mu is
// held.
func (g *group) index(member int) int {
	if g.order == nil { // nobody follows it here: see Apart
		return member
	}
	return slices.Index(g.order, member)
}

// alive says that a member listens, as far as is known.
func (g *group) alive(member int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.index(member) >= 0
}

// last says that a member has the last index, and so is moved when another leaves.
func (g *group) last(member int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.order) > 0 && g.order[len(g.order)-1] == member
}

// lost notes that a member has left, and steers anew if that has moved what is
// steered to.
func (g *group) lost(member int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.order, member)
	if i < 0 {
		return nil
	}
	g.order = slices.Clone(g.order)
	last := len(g.order) - 1
	g.order[i] = g.order[last]
	g.order = g.order[:last]
	return g.steerAnew()
}

// listenAgain makes a member that has left one again.
func (g *group) listenAgain(member int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Contains(g.order, member) {
		return nil
	}
	if err := listenAgain(g.fds[member], g.addr.Port, g.backlog()); err != nil {
		return fmt.Errorf("listen again on member %d of listener %q at %s: %w", member, g.name, g.addr, err)
	}
	g.order = append(slices.Clone(g.order), member)
	g.cameLast(member)
	return g.steerAnew()
}

// cameLast keeps the places up, in which the kernel lists members by when they began
// to listen: those of IPv4 the last first (see recheck.go). mu is held.
func (g *group) cameLast(member int) {
	if g.places == nil {
		return
	}
	places := slices.DeleteFunc(slices.Clone(g.places), func(m int) bool { return m == member })
	if g.family == unix.AF_INET {
		g.places = append([]int{member}, places...)
	} else {
		g.places = append(places, member)
	}
}

// steerAnew puts the program in force that the order asks for. mu is held.
func (g *group) steerAnew() error {
	if g.to < 0 {
		return nil // as it was found
	}
	return g.attach(g.to, g.probes)
}

// backlog is what is asked of listen(2): as for the hold member.
func (g *group) backlog() int {
	if _, room, err := queueOf(g.fds[hold]); err == nil && room > 0 && isListening(g.fds[hold]) {
		return room
	}
	return 4096 // the kernel lowers it to net.core.somaxconn
}

// listenAgain has a TCP socket listen that was shut down. One that was bound to no
// port of its own choice has lost it.
func listenAgain(fd, port, backlog int) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		if sa.Port == 0 {
			sa.Port = port
			err = unix.Bind(fd, sa)
		}
	case *unix.SockaddrInet6:
		if sa.Port == 0 {
			sa.Port = port
			err = unix.Bind(fd, sa)
		}
	}
	if err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// isListening says whether a socket listens.
func isListening(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n == 1
}

// tidy gives members their own index back, so that the next proxyd finds the order
// that it takes for granted. Only what is moved must not matter: where the last one
// belongs to the place of a member that nobody has (free), that one leaves, the last
// one is moved there, and it comes back as the last. Nobody may be steered to
// either.
func (g *group) tidy(free func(member int) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.order) != len(g.fds) || g.to < 0 || len(g.probes) > 0 {
		return nil
	}
	for {
		end := len(g.order) - 1
		last := g.order[end]
		if last == end || last == g.to {
			return nil
		}
		moved := g.order[last]
		if moved == g.to || moved == hold || !free(moved) {
			return nil
		}
		fd := g.fds[moved]
		if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
			return fmt.Errorf("put member %d of listener %q at %s to its place: %w", moved, g.name, g.addr, err)
		}
		g.order = slices.Clone(g.order)
		g.order[last] = last
		g.order = g.order[:end]
		if err := listenAgain(fd, g.addr.Port, g.backlog()); err != nil {
			return errors.Join(g.steerAnew(), fmt.Errorf("listen again on member %d of listener %q at %s: %w", moved, g.name, g.addr, err))
		}
		g.order = append(g.order, moved)
		g.cameLast(moved)
		if err := g.steerAnew(); err != nil {
			return err
		}
	}
}
