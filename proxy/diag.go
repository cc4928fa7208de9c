package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel tells of TCP sockets: sock_diag(7), linux/inet_diag.h.
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	sockDestroy      = 21 // SOCK_DESTROY

	diagRequestSize = 56 // sizeof(struct inet_diag_req_v2)
	diagMessageSize = 72 // sizeof(struct inet_diag_msg)
	diagSockopt     = 22 // INET_DIAG_SOCKOPT
)

// The states of a TCP socket, net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpListen      = 10
	tcpClosing     = 11

	// Those of a connection that is not over on both sides.
	openStates = 1<<tcpEstablished | 1<<tcpSynRecv | 1<<tcpFinWait1 | 1<<tcpFinWait2 | 1<<tcpCloseWait | 1<<tcpLastAck | 1<<tcpClosing
)

// socketSeen is one socket as the kernel tells of it.
type socketSeen struct {
	cookie uint64 // names the socket, and is never used again (SO_COOKIE)
	inode  uint32 // 0: no process has it, or has it any more
	state  uint8
	id     [48]byte // struct inet_diag_sockid, with the cookie
	family uint8
	tag    int8 // of the member that it came in by, or untold
}

// waits says that no process has had it yet: it is in a listener's queue, or on
// its way there. A socket without an inode in any other state was closed by its
// process, and the kernel ends it.
func (s *socketSeen) waits() bool {
	return s.inode == 0 && (s.state == tcpEstablished || s.state == tcpSynRecv || s.state == tcpCloseWait)
}

// local is the socket's own address.
func (s *socketSeen) local() netip.Addr {
	if s.family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(s.id[4:8]))
	}
	return netip.AddrFrom16([16]byte(s.id[4:20])).Unmap()
}

// remotePort is its peer's port.
func (s *socketSeen) remotePort() uint16 { return binary.BigEndian.Uint16(s.id[2:]) }

// diag asks the kernel. It is not safe for use by several goroutines.
type diag struct {
	fd  int
	tag int8 // the bits of tags that count
	seq uint32
	buf []byte
}

func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return &diag{fd: fd, tag: mostMembers - 1, buf: make([]byte, 64<<10)}, nil
}

func (d *diag) close() { unix.Close(d.fd) }

// ask sends a request: a struct nlmsghdr with a struct inet_diag_req_v2.
func (d *diag) ask(kind, flags uint16, family uint8, states uint32, id []byte) error {
	d.seq++
	var m [unix.SizeofNlMsghdr + diagRequestSize]byte
	header := (*unix.NlMsghdr)(unsafe.Pointer(&m))
	*header = unix.NlMsghdr{Len: uint32(len(m)), Type: kind, Flags: unix.NLM_F_REQUEST | flags, Seq: d.seq}
	req := m[unix.SizeofNlMsghdr:]
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], states)
	copy(req[8:], id)
	_, err := unix.Write(d.fd, m[:])
	return err
}

// noCookie (INET_DIAG_NOCOOKIE) asks for a socket whatever its cookie is.
const noCookie = ^uint64(0)

// each calls f for every socket of a family with a local port, in some of
// states. It gives no moment's picture: the kernel walks its table while it
// changes, and one that moves may be missed.
func (d *diag) each(family, port int, states uint32, f func(*socketSeen)) error {
	return d.between(family, port, 0, states, f)
}

// between is each for a remote port as well; 0 is any.
func (d *diag) between(family, port, remote int, states uint32, f func(*socketSeen)) error {
	var id [48]byte
	binary.BigEndian.PutUint16(id[:], uint16(port))
	binary.BigEndian.PutUint16(id[2:], uint16(remote))
	binary.NativeEndian.PutUint64(id[40:], noCookie)
	if err := d.ask(sockDiagByFamily, unix.NLM_F_DUMP, uint8(family), states, id[:]); err != nil {
		return fmt.Errorf("ask for sockets: %w", err)
	}
	for {
		done, err := d.receive(f)
		if err != nil {
			return fmt.Errorf("read sockets: %w", nameModule(err))
		}
		if done {
			return nil
		}
	}
}

// nameModule says what is missing where the kernel knows nothing of TCP's sockets: it
// answers then as it does for one socket that is gone (inet_diag_lock_handler in
// net/ipv4/inet_diag.c, which has tried to load the module).
func nameModule(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: the kernel module tcp_diag is not there", err)
	}
	return err
}

// has says whether a socket that was seen is still there, and how it is now.
// Unlike each it looks the one socket up, so its answer is exact.
func (d *diag) has(s *socketSeen) (now socketSeen, ok bool, err error) {
	if err := d.ask(sockDiagByFamily, 0, s.family, ^uint32(0), s.id[:]); err != nil {
		return now, false, fmt.Errorf("ask for socket: %w", err)
	}
	_, err = d.receive(func(found *socketSeen) { now, ok = *found, found.cookie == s.cookie })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		return now, false, nil
	}
	if err != nil {
		return now, false, fmt.Errorf("read socket: %w", err)
	}
	return now, ok, nil
}

// accepted gives the end of a connection that a listener on this machine has of it:
// local is its own address and port, remote its peer's, both on an interface where
// they are link-local. ok is false where there is none.
func (d *diag) accepted(port int, local netip.Addr, remote netip.AddrPort, zone int) (found socketSeen, ok bool, err error) {
	var id [48]byte
	binary.BigEndian.PutUint16(id[:], uint16(port))
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:], local.AsSlice())
	copy(id[20:], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[36:], uint32(zone))
	binary.NativeEndian.PutUint64(id[40:], noCookie)
	family := uint8(unix.AF_INET6)
	if local.Is4() {
		family = unix.AF_INET // also for a socket of IPv6 that takes both
	}
	if err := d.ask(sockDiagByFamily, 0, family, ^uint32(0), id[:]); err != nil {
		return found, false, fmt.Errorf("ask for socket: %w", err)
	}
	// Where there is none the kernel gives the listener.
	_, err = d.receive(func(s *socketSeen) { found, ok = *s, s.state != tcpListen && s.remotePort() == remote.Port() })
	if errors.Is(err, unix.ENOENT) {
		return found, false, nil
	}
	if err != nil {
		return found, false, fmt.Errorf("read socket: %w", err)
	}
	return found, ok, nil
}

// destroy ends a connection with a reset, whoever has it (SOCK_DESTROY; needs
// CAP_NET_ADMIN in the network's user namespace). One that has ended by itself
// is no error.
func (d *diag) destroy(s *socketSeen) error {
	if err := d.ask(sockDestroy, unix.NLM_F_ACK, s.family, ^uint32(0), s.id[:]); err != nil {
		return fmt.Errorf("destroy socket: %w", err)
	}
	_, err := d.receive(func(*socketSeen) {})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
		return fmt.Errorf("destroy socket: %w", err)
	}
	return nil
}

var errDiag = errors.New("unexpected answer of sock_diag")

// receive takes one datagram of answers. done: the last one of its request.
func (d *diag) receive(f func(*socketSeen)) (done bool, err error) {
	n, err := unix.Read(d.fd, d.buf)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for b := d.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		header := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
		size := int(header.Len)
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, errDiag
		}
		body := b[unix.SizeofNlMsghdr:size]
		b = b[min((size+3)&^3, len(b)):]
		if header.Seq != d.seq {
			continue // of an earlier request that failed half-way
		}
		switch header.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errDiag
			}
			if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
				return true, syscall.Errno(errno)
			}
			return true, nil
		case sockDiagByFamily, sockDestroy:
			if len(body) < diagMessageSize {
				return false, errDiag
			}
			s := parseSeen(body)
			if s.tag != untold {
				s.tag &= d.tag
			}
			f(&s)
		default:
			return false, errDiag
		}
	}
	return false, nil
}

// parseSeen reads a struct inet_diag_msg and the attributes behind it.
func parseSeen(b []byte) socketSeen {
	s := socketSeen{
		tag:    untold,
		family: b[0], state: b[1], id: [48]byte(b[4:52]),
		cookie: uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32,
		inode:  binary.NativeEndian.Uint32(b[68:72]),
	}
	for b = b[diagMessageSize:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == diagSockopt && size >= unix.SizeofRtAttr+2 {
			s.tag = int8(tagOf(b[unix.SizeofRtAttr:]))
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return s
}
