package activation

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// handedOut holds the ports that FreePort gave and nobody released.
var handedOut = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// Ports below this one are where people put their services; they are the last
// to be taken.
const politePort = 10000

// FreePort gives a loopback TCP port for a program that binds by itself. It is
// outside of the ephemeral range (ip_local_port_range, ip(7)): a connect to a
// port in that range, on which nobody listens, may be given the same port as its
// own and so connect to itself, and any other program's connect may take the
// port away before the program binds it. It is random, was free on every address
// of the host a moment ago, and is not given again before ReleasePort.
func FreePort() (int, error) { return freePort(candidates(readPortRanges())) }

func freePort(ports iter.Seq[int]) (int, error) {
	for port := range ports {
		if !take(port) {
			continue
		}
		fd, err := bindTCP(&net.TCPAddr{Port: port}, 0, false)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			fd, err = bindTCP(&net.TCPAddr{IP: net.IPv4zero, Port: port}, 0, false)
		}
		if err == nil {
			unix.Close(fd)
			return port, nil
		}
		ReleasePort(port)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("find free port: %w", err)
		}
	}
	return 0, ErrNoPort
}

// ReservePort keeps FreePort from giving port, which an earlier proxyd gave to a
// generation that is to be started again.
func ReservePort(port int) { take(port) }

// ReleasePort lets FreePort give port again.
func ReleasePort(port int) {
	handedOut.Lock()
	defer handedOut.Unlock()
	delete(handedOut.ports, port)
}

func take(port int) bool {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports[port] {
		return false
	}
	handedOut.ports[port] = true
	return true
}

// listenAnyPort listens on a port that FreePort could have given; the bind itself
// is the check.
func listenAnyPort(name string, addr *net.TCPAddr) (Listener, error) {
	for port := range candidates(readPortRanges()) {
		if !take(port) {
			continue
		}
		l, err := listenTCP(name, &net.TCPAddr{IP: addr.IP, Zone: addr.Zone, Port: port}, 0)
		ReleasePort(port) // the socket itself keeps it from others
		if err == nil || !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EACCES) {
			return l, err
		}
	}
	return Listener{}, ErrNoPort
}

// portRange holds both its ends.
type portRange struct{ first, last int }

func (r portRange) holds(port int) bool { return r.first <= port && port <= r.last }

// candidates yields ports in the order in which they are tried: at random from
// the polite ones outside of the ephemeral range, then from the other ones
// outside of it, then, on a host that leaves nothing outside, from inside.
func candidates(ephemeral portRange, reserved []portRange) iter.Seq[int] {
	var polite, low, inside []int
	for port := 1024; port <= 65535; port++ {
		switch {
		case anyHolds(reserved, port):
		case ephemeral.holds(port):
			inside = append(inside, port)
		case port < politePort:
			low = append(low, port)
		default:
			polite = append(polite, port)
		}
	}
	return func(yield func(int) bool) {
		for _, ports := range [][]int{polite, low, inside} {
			for _, i := range rand.Perm(len(ports)) {
				if !yield(ports[i]) {
					return
				}
			}
		}
	}
}

func anyHolds(ranges []portRange, port int) bool {
	for _, r := range ranges {
		if r.holds(port) {
			return true
		}
	}
	return false
}

// readPortRanges reads the ephemeral range and the ports that the administrator
// keeps for somebody (ip-sysctl.rst). Where /proc cannot be read the kernel's
// defaults are assumed.
func readPortRanges() (ephemeral portRange, reserved []portRange) {
	ephemeral = portRange{32768, 60999}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var r portRange
		if _, err := fmt.Sscan(string(b), &r.first, &r.last); err == nil {
			ephemeral = r
		}
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports"); err == nil {
		reserved = parseReserved(string(b))
	}
	return ephemeral, reserved
}

// parseReserved reads "8080,9148-9150".
func parseReserved(s string) []portRange {
	var ranges []portRange
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil {
			ranges = append(ranges, portRange{first, last})
		}
	}
	return ranges
}
