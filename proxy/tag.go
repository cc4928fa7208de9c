package proxy

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Each member of a group carries its index as a tag, and what comes in by it
// inherits the tag from its handshake's end on: in the queue, with whichever
// process accepts it, and when it is passed on to another. So the kernel itself
// can be asked whose a connection is, by anybody, without a look at processes. A
// connection that a generation passes to another generation stays the first one's: it
// counts there until it ends, and a drain of the first waits for it.
//
// A tag is made of socket options that mean nothing to an accepted TCP
// connection, that no privilege is needed for, and that sock_diag tells
// (INET_DIAG_SOCKOPT, since Linux 5.9): those of multicast, ip(7), of a bind
// that chooses no port, of how much of an ICMP error is kept, and of a bind to an
// address that is not there. The last is the one that programs set (HAProxy's
// "transparent", Envoy's "freebind"): it counts only in groups that need as many tags
// (tagMask). Where a program has changed what counts, tally.go finds that out.
var tagOptions = []struct {
	option int
	set    int // the value that counts as 1
	at     int // byte of struct inet_diag_sockopt
	bit    uint8
}{
	{unix.IP_MULTICAST_LOOP, 0, 0, 1 << 4},
	{unix.IP_MULTICAST_ALL, 0, 0, 1 << 6},
	{unix.IP_BIND_ADDRESS_NO_PORT, 1, 1, 1 << 0},
	{unix.IP_RECVERR_RFC4884, 1, 1, 1 << 1},
	{unix.IP_FREEBIND, 1, 0, 1 << 2},
}

// mostMembers is how many there are tags for.
const mostMembers = 32

// tagMask gives the part of tags that tells the members of a group from each other.
func tagMask(members int) int { return 1<<bits.Len(uint(members-1)) - 1 }

// tag gives a socket a tag. The one of all sockets that were given none is 0,
// which is the hold member's.
func tag(fd, value int) error {
	for i, o := range tagOptions {
		want := o.set
		if value&(1<<i) == 0 {
			want = 1 - o.set
		}
		if now, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, o.option); err == nil && now == want {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, o.option, want); err != nil {
			return fmt.Errorf("tag socket: %w", err)
		}
	}
	return nil
}

// readTag gives the tag that a socket has, untold where that cannot be read.
func readTag(fd int) int {
	value := 0
	for i, o := range tagOptions {
		now, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, o.option)
		if err != nil {
			return untold
		}
		if now == o.set {
			value |= 1 << i
		}
	}
	return value
}

// tagOf reads a tag from a struct inet_diag_sockopt.
func tagOf(b []byte) int {
	value := 0
	for i, o := range tagOptions {
		if (b[o.at]&o.bit != 0) == (o.set == 1) {
			value |= 1 << i
		}
	}
	return value
}

// untold is the tag of a socket of which the kernel tells none: a handshake, or
// with an old kernel all.
const untold = -1

var errUntold = errors.New("this kernel does not tell the options of sockets")
