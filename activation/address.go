package activation

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUnixPath is what sun_path holds, less the byte that ends it (unix(7)).
const maxUnixPath = 107

// ParseAddress reads an address as flags and config write it and gives a
// *net.TCPAddr or a *net.UnixAddr:
//
//	127.0.0.1:8080   IPv4
//	[::1]:8080       IPv6, a zone such as [fe80::1%eth0]:8080 included
//	[::]:80, :80     every address of the host, IPv4 and IPv6
//	unix:/run/x.sock a unix stream socket, by its whole path
//
// Host names are not looked up: what a listener is bound to must not depend on
// a resolver. Port 0 asks the kernel for a free one. The error is ErrAddress or
// ErrTooLong.
func ParseAddress(s string) (net.Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if err := checkPath(path); err != nil {
			return nil, err
		}
		return &net.UnixAddr{Net: "unix", Name: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		switch {
		case strings.HasPrefix(s, "/"):
			return nil, fmt.Errorf("parse address %q: %w: write unix:%s", s, ErrAddress, s)
		case isPort(s):
			return nil, fmt.Errorf("parse address %q: %w: write :%s", s, ErrAddress, s)
		case strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "["):
			return nil, fmt.Errorf("parse address %q: %w: an IPv6 address stands in brackets, [::1]:8080", s, ErrAddress)
		}
		return nil, fmt.Errorf("parse address %q: %w: write HOST:PORT or unix:/PATH", s, ErrAddress)
	}
	if !isPort(port) {
		return nil, fmt.Errorf("parse address %q: %w: the port is a number from 0 to 65535", s, ErrAddress)
	}
	n, _ := strconv.Atoi(port)
	if host == "" {
		return &net.TCPAddr{Port: n}, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Is4In6() && ip.Zone() != "" {
		return nil, fmt.Errorf("parse address %q: %w: the host is an IP address, names are not looked up", s, ErrAddress)
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(n))), nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil && s[0] != '+'
}

// checkPath refuses what cannot be the path of a socket.
func checkPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("parse address %q: %w: the path begins with /", "unix:"+path, ErrAddress)
	case strings.HasSuffix(path, "/"):
		return fmt.Errorf("parse address %q: %w: the path ends with /", "unix:"+path, ErrAddress)
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("parse address %q: %w: the path holds a control byte", "unix:"+path, ErrAddress)
	case len(path) > maxUnixPath:
		return fmt.Errorf("parse address %q: the path is %d bytes, %w", "unix:"+path, len(path), ErrTooLong)
	}
	return nil
}

// sockaddr makes of a TCP address what bind(2) takes. An address of no family
// (":80") becomes the IPv6 one that takes both.
func sockaddr(a *net.TCPAddr) (family int, sa unix.Sockaddr, err error) {
	if ip4 := a.IP.To4(); ip4 != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip4)}, nil
	}
	sa6 := &unix.SockaddrInet6{Port: a.Port}
	if ip16 := a.IP.To16(); ip16 != nil {
		sa6.Addr = [16]byte(ip16)
	} else if len(a.IP) != 0 {
		return 0, nil, fmt.Errorf("%w: an IP address of %d bytes", ErrAddress, len(a.IP))
	}
	if a.Zone != "" {
		if n, err := strconv.ParseUint(a.Zone, 10, 32); err == nil {
			sa6.ZoneId = uint32(n)
		} else {
			i, err := net.InterfaceByName(a.Zone)
			if err != nil {
				return 0, nil, fmt.Errorf("%w: zone %q: %w", ErrAddress, a.Zone, err)
			}
			sa6.ZoneId = uint32(i.Index)
		}
	}
	return unix.AF_INET6, sa6, nil
}
