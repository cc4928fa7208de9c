package proxy

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A program can open a socket of its own at a listener's address, beside the one
// that it was handed: SO_REUSEPORT lets it, where it is the same user's. The socket
// is a member of the group then, a stranger. One that joined after ours does no
// harm: its index is behind theirs, no program of ours names it, so it gets no
// connection, and when it is closed the last of the strangers takes its place. Only
// where a member of ours is shut down is a stranger moved between ours (order.go): then
// no member is lent any more, and what is lent goes on. But
// whoever opened it may wait for clients there in vain, so it is said.
//
// One that was there before ours is another matter: it has an index of ours. So a
// group with strangers is taken only where it was a group of ours alone before, see
// DirectConfig.Before, and its members are then proven as ever.

// listening is what listens at a group's address.
type listening struct {
	members   []int // in the kernel's order
	wrong     int   // how many of these do not tell their tag
	strangers map[uint64]socketSeen
}

func (g *group) listening(diag *diag, ours map[uint64]int) (listening, error) {
	all := listening{strangers: map[uint64]socketSeen{}}
	err := diag.each(g.family, g.addr.Port, 1<<tcpListen, func(s *socketSeen) {
		if i, is := ours[s.cookie]; is {
			all.members = append(all.members, i)
			if int(s.tag) != i {
				all.wrong++
			}
		} else if s.local() == g.listens() {
			all.strangers[s.cookie] = *s
		}
	})
	return all, err
}

// cookies gives the members of a group by what the kernel knows them by.
func (g *group) cookies() (map[uint64]int, error) {
	known := map[uint64]int{}
	for i, fd := range g.fds {
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			return nil, fmt.Errorf("read socket cookie: %w", err)
		}
		known[cookie] = i
	}
	return known, nil
}

// tellStrangers logs what is new of a group's strangers, each once.
func (d *Direct) tellStrangers(g *group, now map[uint64]socketSeen) {
	for cookie, s := range now {
		if _, known := g.strangers[cookie]; !known {
			whose := "unknown"
			if d.whose != nil {
				whose = d.whose(s.inode)
			}
			d.log.Warn("somebody opened a socket of their own at a listener's address: it gets no clients, those that were handed over do",
				"listener", g.name, "address", g.addr, "whose", whose, "inode", s.inode)
		}
	}
	if len(now) == 0 && len(g.strangers) > 0 {
		d.log.Info("no other sockets are at a listener's address any more", "listener", g.name, "address", g.addr)
	}
	g.strangers = now
	g.others.Store(int32(len(now)))
}
