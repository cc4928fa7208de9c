package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// group is the SO_REUSEPORT group of one address. New connections go where a
// classic BPF program says that is attached to it (SO_ATTACH_REUSEPORT_CBPF,
// socket(7)): a number, which the kernel takes as the index of a member. The
// index is the order of listen(2), and stays as long as no member is closed or
// shut down (reuseport_add_sock and __reuseport_detach_sock in
// net/core/sock_reuseport.c).
type group struct {
	name   string
	addr   *net.TCPAddr
	family int   // of the sockets: AF_INET, AF_INET6
	dual   bool  // IPv6 ones that take IPv4 as well
	fds    []int // members; borrowed

	places    []int                 // members, as the kernel lists them if all is known; guarded by mu
	strangers map[uint64]socketSeen // that were told of, by cookie; guarded by Direct.counting
	others    atomic.Int32          // how many these are

	mu     sync.Mutex
	order  []int // which member the kernel has at each index, see order.go
	to     int   // member; -1: as it is, which is not known here
	probes []probe
}

// probe is one connection of our own that goes to a member of its choice,
// whatever all others do. It is known by its source, which only we can have: a
// local address, so that no other machine can send from it, and a port that we
// have bound.
type probe struct {
	from net.TCPAddr
	to   int // index
}

// maxProbes bounds the program's length; there is one for each readiness check
// that connects just now.
const maxProbes = 32

// hold is the member that nobody accepts from but the relay.
const hold = 0

// checkTime bounds one check of a member; a connect on this machine takes
// microseconds.
const checkTime = 3 * time.Second

// arriveTime is how long a connection that was made may take to show up at its
// member; it is there before connect(2) returns, mostly.
const arriveTime = time.Second

var errProbes = errors.New("too many checks connect at once")

// Offsets in the network header, which a classic program reaches from
// SKF_NET_OFF on. The data of the packet itself begins behind the TCP header.
const (
	skfNetOff = -0x100000
	bpfRet    = unix.BPF_RET | unix.BPF_K
)

func load(size uint16, at int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: uint32(skfNetOff + at)}
}

// program gives what steers to member to, but for the probes. Each probe is a
// block of loads and comparisons; each comparison that fails leaves the block.
func program(to int, probes []probe) []unix.SockFilter {
	var all []unix.SockFilter
	for _, p := range probes {
		var block []unix.SockFilter
		same := func(size uint16, at int, value uint32) {
			block = append(block, load(size, at), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value})
		}
		if ip := p.from.IP.To4(); ip != nil {
			same(unix.BPF_B, 0, 0x45) // IPv4 without options
			same(unix.BPF_W, 12, binary.BigEndian.Uint32(ip))
			same(unix.BPF_H, 20, uint32(p.from.Port))
		} else {
			block = append(block, load(unix.BPF_B, 0), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x60})
			same(unix.BPF_B, 6, unix.IPPROTO_TCP) // no extension header
			for i := 0; i < 16; i += 4 {
				same(unix.BPF_W, 8+i, binary.BigEndian.Uint32(p.from.IP[i:]))
			}
			same(unix.BPF_H, 40, uint32(p.from.Port))
		}
		block = append(block, unix.SockFilter{Code: bpfRet, K: uint32(p.to)})
		for i := range block {
			if block[i].Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K {
				block[i].Jf = uint8(len(block) - i - 1)
			}
		}
		all = append(all, block...)
	}
	return append(all, unix.SockFilter{Code: bpfRet, K: uint32(to)})
}

// attach puts a program in force. The kernel replaces the one before in one
// step: each new connection is decided by one of the two. In place of a member
// that does not listen it is the hold member.
func (g *group) attach(to int, probes []probe) error {
	index := g.index(to)
	if index < 0 {
		index = max(0, g.index(hold))
	}
	fd := g.fds[0]
	if i := slices.IndexFunc(g.order, func(m int) bool { return m >= 0 }); i >= 0 {
		fd = g.fds[g.order[i]] // one that is in the group
	}
	filter := program(index, probes)
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("steer listener %q at %s: %w", g.name, g.addr, err)
	}
	g.to, g.probes = to, probes
	return nil
}

// steer makes new connections go to a member. When it returns, none that begins
// later goes elsewhere.
func (g *group) steer(to int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.attach(to, g.probes)
}

// reach gives the address at which the group is reached from this machine.
func (g *group) reach() *net.TCPAddr {
	to := *g.addr
	switch {
	case len(to.IP) > 0 && !to.IP.IsUnspecified():
	case g.family == unix.AF_INET || g.dual:
		to.IP = net.IPv4(127, 0, 0, 1)
	default:
		to.IP = net.IPv6loopback
	}
	return &to
}

// dial connects to one member.
func (g *group) dial(ctx context.Context, member int) (net.Conn, error) {
	return g.dialAt(ctx, func() int { return g.index(member) })
}

// dialAt connects to what is at an index. That is asked for with mu held.
func (g *group) dialAt(ctx context.Context, index func() int) (net.Conn, error) {
	to := g.reach()
	from := net.TCPAddr{IP: to.IP, Zone: to.Zone}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = g.aim(int(fd), &from, index) })
		return errors.Join(err, failed)
	}}
	defer g.forget(&from)
	return d.DialContext(ctx, "tcp", to.String())
}

// aim binds a socket that is about to connect and lets the group know it.
func (g *group) aim(fd int, from *net.TCPAddr, index func() int) error {
	g.forget(from) // net.Dialer may try again
	from.Port = 0
	if err := bindFrom(fd, from); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read own address: %w", err)
	}
	from.Port = int(sockAddr(bound).Port())
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.probes) >= maxProbes {
		return errProbes
	}
	to := index()
	if to < 0 {
		return errDown
	}
	return g.attach(max(g.to, hold), append(slices.Clone(g.probes), probe{*from, to}))
}

// sourcesTried is how many addresses a probe over loopback tries to come from, and
// how many ports.
const sourcesTried = 8

// bindFrom binds a socket to a local address and a free port. bind(2) counts a
// port as used that an ended connection of that address has in TIME_WAIT, also
// where connect(2) would take it. So it can find none while clients of this
// machine still connect. All of 127.0.0.0/8 is loopback's: then from becomes
// another address of it. Elsewhere, as for ::1, which is alone, it gets a port that
// the kernel gives to no connect.
func bindFrom(fd int, from *net.TCPAddr) error {
	err := bindAt(fd, from)
	for range sourcesTried - 1 {
		if from.IP.To4() == nil || !from.IP.IsLoopback() || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		from.IP = net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254)))
		err = bindAt(fd, from)
	}
	given := ephemeralPorts()
	for range sourcesTried {
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		const first, last = 1024, 65535
		from.Port = first + rand.N(last-first+1)
		if from.Port >= given[0] && from.Port <= given[1] {
			from.Port = first + (from.Port-given[0])%max(1, given[0]-first)
		}
		if err = bindAt(fd, from); err == nil {
			// Its TIME_WAIT is in the way of no server that comes to this port.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
	}
	return err
}

func bindAt(fd int, at *net.TCPAddr) error {
	if ip := at.IP.To4(); ip != nil {
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(ip), Port: at.Port})
	}
	zone := uint32(0)
	if ifi, err := net.InterfaceByName(at.Zone); err == nil {
		zone = uint32(ifi.Index)
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte(at.IP), Port: at.Port, ZoneId: zone})
}

// forget takes a probe out once it is connected or has failed. The connection
// stays where it is: only its first packet is steered.
func (g *group) forget(from *net.TCPAddr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(g.probes), func(p probe) bool {
		return p.from.Port == from.Port && p.from.IP.Equal(from.IP)
	})
	if len(left) != len(g.probes) {
		_ = g.attach(g.to, left) // one too many does no harm: its port is free soon, and its source is local
	}
}

// check proves that a member is at its index: a connection that is aimed at it
// must be the one that is accepted from it. The member must belong to nobody,
// its queue be empty, and the group be steered elsewhere. stray is given a
// client that came in between, from a handshake that had begun before.
func (g *group) check(ctx context.Context, member int, stray func(fd int)) error {
	fail := func(err error) error {
		return fmt.Errorf("check member %d of listener %q at %s: %w", member, g.name, g.addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if err := unix.SetNonblock(g.fds[member], true); err != nil {
		return fail(err)
	}
	conn, err := g.dial(ctx, member)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	from := localAddr(conn)
	// Under TCP_DEFER_ACCEPT, tcp(7), one arrives with its first byte.
	if _, err := conn.Write([]byte{0}); err != nil {
		return fail(err)
	}
	for deadline := time.Now().Add(arriveTime); ; {
		fd, sa, err := unix.Accept4(g.fds[member], unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if left := time.Until(deadline); errors.Is(err, unix.EAGAIN) && left > 0 {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(g.fds[member]), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			continue
		}
		if err != nil {
			return fail(fmt.Errorf("what was sent there did not arrive (%w): %w", err, ErrGroup))
		}
		if sockAddr(sa) == from {
			unix.Close(fd)
			return nil
		}
		stray(fd)
	}
}

// checkLent is check for a member that a generation has: nothing is accepted from
// it, the tag of what the connection came to is looked at. A handshake that waits
// for a first byte, see check, has none, and says nothing.
func (g *group) checkLent(ctx context.Context, diag *diag, member int) error {
	fail := func(err error) error {
		return fmt.Errorf("check member %d of listener %q at %s: %w", member, g.name, g.addr, err)
	}
	conn, err := g.dial(ctx, member)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	at, err := g.cameTo(diag, conn)
	if err == nil && at != untold && at != member {
		err = fmt.Errorf("what was sent there came to member %d: %w", at, ErrGroup)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// peerTag gives the tag of what a connection of our own has come to; untold where it
// waits for a first byte under TCP_DEFER_ACCEPT, tcp(7), or was closed already. It
// looks the one socket up, so it costs the same however many there are.
func (g *group) peerTag(diag *diag, conn net.Conn) (int, error) {
	from, to := localAddr(conn), conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	s, ok, err := diag.accepted(g.addr.Port, to, from, zoneOf(conn))
	if err != nil || !ok {
		return untold, err
	}
	return int(s.tag), nil
}

// cameTo gives the member that a connection of our own has come to, by its tag; or
// untold.
func (g *group) cameTo(diag *diag, conn net.Conn) (member int, err error) {
	tag, err := g.peerTag(diag, conn)
	if err != nil || tag == untold {
		return untold, err
	}
	at := untold
	for m, fd := range g.fds {
		if readTag(fd) == tag { // a program may have changed it: see tag.go
			if at != untold {
				return untold, nil
			}
			at = m
		}
	}
	return at, nil
}

// zoneOf gives the number of the interface of a link-local address; 0: none.
func zoneOf(conn net.Conn) int {
	if zone := conn.LocalAddr().(*net.TCPAddr).Zone; zone != "" {
		if ifi, err := net.InterfaceByName(zone); err == nil {
			return ifi.Index
		}
	}
	return 0
}

// localAddr gives the address that a probe comes from, as sockAddr does.
func localAddr(conn net.Conn) netip.AddrPort {
	at := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

func sockAddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
