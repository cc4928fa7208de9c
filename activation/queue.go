package activation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// QueueLength tells how many connections wait in a listening socket's queue:
// complete, but not accepted by anybody. For TCP the kernel puts it into
// tcpi_unacked of TCP_INFO on the listening socket (tcp_get_info in
// net/ipv4/tcp.c); for unix sockets it is what `ss -xl` shows as Recv-Q, asked
// for by inode over sock_diag(7). The descriptor is only borrowed.
func QueueLength(fd int) (int, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	if domain == unix.AF_UNIX {
		return unixQueueLength(fd)
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	return int(info.Unacked), nil
}

// From linux/unix_diag.h.
const (
	unixDiagShowQueue = 0x10 // UDIAG_SHOW_RQLEN
	unixDiagQueue     = 4    // UNIX_DIAG_RQLEN
	sockDiagByFamily  = 20   // SOCK_DIAG_BY_FAMILY
	unixDiagMessage   = 16   // sizeof(struct unix_diag_msg), the attributes follow
)

type unixDiagRequest struct {
	header unix.NlMsghdr
	family uint8
	proto  uint8
	_      uint16
	states uint32
	inode  uint32
	show   uint32
	cookie [2]uint32
}

func unixQueueLength(fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	diag, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	defer unix.Close(diag)
	req := unixDiagRequest{family: unix.AF_UNIX, states: ^uint32(0), inode: uint32(st.Ino), show: unixDiagShowQueue,
		cookie: [2]uint32{^uint32(0), ^uint32(0)}} // INET_DIAG_NOCOOKIE: whatever it is
	req.header = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(req)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST}
	if _, err := unix.Write(diag, unsafe.Slice((*byte)(unsafe.Pointer(&req)), unsafe.Sizeof(req))); err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(diag, buf)
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	length, err := parseUnixQueue(buf[:n])
	if err != nil {
		return 0, fmt.Errorf("read queue length: %w", err)
	}
	return length, nil
}

var errDiag = errors.New("unexpected answer of sock_diag")

// parseUnixQueue finds the queue's length in one netlink message.
func parseUnixQueue(b []byte) (int, error) {
	const header = unix.SizeofNlMsghdr
	if len(b) < header+4 {
		return 0, errDiag
	}
	switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
	case unix.NLMSG_ERROR:
		return 0, syscall.Errno(-int32(binary.NativeEndian.Uint32(b[header:])))
	case sockDiagByFamily:
	default:
		return 0, errDiag
	}
	b = b[header:]
	if len(b) < unixDiagMessage {
		return 0, errDiag
	}
	b = b[unixDiagMessage:]
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return 0, errDiag
		}
		if binary.NativeEndian.Uint16(b[2:]) == unixDiagQueue && size >= unix.SizeofRtAttr+4 {
			return int(binary.NativeEndian.Uint32(b[unix.SizeofRtAttr:])), nil
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return 0, errDiag
}
