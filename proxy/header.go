package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"
)

// errHeader: a client that has to begin with a header of the PROXY protocol
// began with something else.
var errHeader = errors.New("not a PROXY header")

// Bounds of a header: a line of version 1 is no longer than this by its
// definition; version 2 could be 64 KiB, and carries a certificate at most.
const (
	maxHeader1 = 107
	maxHeader  = 4096
)

// headers is what a listener does with headers of the PROXY protocol, version
// 1 and 2: https://www.haproxy.org/download/3.4/doc/proxy-protocol.txt
type headers struct {
	send      int // the version that the generation is sent; 0: none
	trusted   []netip.Prefix
	trustUnix bool
}

func newHeaders(l Listener) (headers, error) {
	if l.ProxyProtocol < 0 || l.ProxyProtocol > 2 {
		return headers{}, fmt.Errorf("PROXY protocol version %d: %w", l.ProxyProtocol, ErrListener)
	}
	return headers{l.ProxyProtocol, l.AcceptProxy, l.AcceptProxyUnix}, nil
}

// any: this listener has to do with headers at all.
func (h *headers) any() bool { return h.send != 0 || h.reads() }

func (h *headers) reads() bool { return h.trustUnix || len(h.trusted) > 0 }

// believes tells whether the client behind fd is one whose header counts. Only
// the kernel is asked who it is, nothing that it sent.
func (h *headers) believes(fd int32) bool {
	if !h.reads() {
		return false
	}
	peer, isUnix, err := endpoint(unix.Getpeername(int(fd)))
	if err != nil || isUnix {
		return err == nil && h.trustUnix
	}
	for _, p := range h.trusted {
		if p.Contains(peer.Addr()) {
			return true
		}
	}
	return false
}

// headerSize gives the length of the header that b begins with, 0 if more
// bytes are needed to tell. An error as soon as it cannot become one.
func headerSize(b []byte) (int, error) {
	if begins(b, proxyproto.SIGV2) {
		if len(b) < 16 {
			return 0, nil
		}
		size := 16 + int(binary.BigEndian.Uint16(b[14:]))
		if size > maxHeader {
			return 0, fmt.Errorf("%d bytes: %w", size, errHeader)
		}
		if len(b) < size {
			return 0, nil
		}
		return size, nil
	}
	if !begins(b, []byte("PROXY ")) {
		return 0, errHeader
	}
	line := b[:min(len(b), maxHeader1)]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		return end + 1, nil
	}
	if len(line) == maxHeader1 {
		return 0, fmt.Errorf("a line of more than %d bytes: %w", maxHeader1, errHeader)
	}
	return 0, nil
}

// begins: b starts with what, or could when more of it has come.
func begins(b, what []byte) bool {
	n := min(len(b), len(what))
	return bytes.Equal(b[:n], what[:n])
}

// parseHeader reads a whole header. nil: it names nobody, and the connection's
// own ends are meant (LOCAL, UNKNOWN, and version 2 without a family).
func parseHeader(b []byte) (*proxyproto.Header, error) {
	const proxyUnspecified = "\x21\x00"
	if begins(b, proxyproto.SIGV2) && string(b[12:14]) == proxyUnspecified {
		return nil, nil
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), maxHeader))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	if h.Command.IsLocal() {
		return nil, nil
	}
	return h, nil
}

// format makes the header for the generation. said is the one that the client
// began with, nil if it began with none or with one that names nobody; raw are
// its bytes.
func (h *headers) format(fd int32, said *proxyproto.Header, raw []byte) ([]byte, error) {
	switch {
	case h.send == 0:
		return nil, nil
	case said == nil:
		src, _, err1 := endpoint(unix.Getpeername(int(fd)))
		dst, _, err2 := endpoint(unix.Getsockname(int(fd)))
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return between(h.send, src, dst).Format()
	case int(said.Version) == h.send:
		return raw, nil // with all that was said beside the addresses
	}
	other := *said
	other.Version = byte(h.send)
	return other.Format()
}

// between is the header for a connection of two TCP ends. A unix socket's ends
// have no address that would mean something to a generation: where they are
// not valid the header names nobody.
func between(version int, src, dst netip.AddrPort) *proxyproto.Header {
	if !src.IsValid() || !dst.IsValid() {
		return &proxyproto.Header{Version: byte(version), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	}
	return proxyproto.HeaderProxyFromAddrs(byte(version), net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(dst))
}

// LocalHeader is the header of a connection that proxyd itself makes to a
// generation, of version 1 or 2: it names no client. nil for any other version.
func LocalHeader(version int) []byte {
	b, err := between(version, netip.AddrPort{}, netip.AddrPort{}).Format()
	if err != nil {
		return nil // there is no such version
	}
	return b
}

// endpoint takes what getpeername(2) or getsockname(2) gave. An IPv4 client of
// a dual-stack listener is given as IPv4; zones are left out, as headers know
// none. isUnix, and no address, for a unix socket.
func endpoint(sa unix.Sockaddr, err error) (a netip.AddrPort, isUnix bool, _ error) {
	if err != nil {
		return a, false, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), false, nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), false, nil
	}
	return a, true, nil
}
