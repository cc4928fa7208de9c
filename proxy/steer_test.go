package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// membersAt opens the members of a group at an address with port 0, as a
// .socket unit with ReusePort=yes would.
func membersAt(t testing.TB, ip string, n int, v6only bool) (*net.TCPAddr, []int) {
	t.Helper()
	addr := &net.TCPAddr{IP: net.ParseIP(ip)}
	var fds []int
	for range n {
		fd := memberAt(t, addr, v6only)
		fds = append(fds, fd)
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		addr.Port = int(sockAddr(sa).Port())
	}
	return addr, fds
}

func memberAt(t testing.TB, addr *net.TCPAddr, v6only bool) int {
	t.Helper()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: addr.Port, Addr: [16]byte(addr.IP.To16())})
	if ip := addr.IP.To4(); ip != nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if family == unix.AF_INET6 {
		only := 0
		if v6only {
			only = 1
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if err := errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, sa), unix.Listen(fd, 4096)); err != nil {
		t.Fatal(err)
	}
	return fd
}

// landed says at which members a connection waits, and takes it.
func landed(t testing.TB, fds []int) (at []int) {
	t.Helper()
	for i, fd := range fds {
		for {
			got, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			unix.Close(got)
			at = append(at, i)
		}
	}
	return at
}

var groupsTried = []struct {
	name, ip string
	v6only   bool
	dial     []string // hosts
}{
	{"ipv4", "127.0.0.1", false, []string{"127.0.0.1"}},
	{"every ipv4", "0.0.0.0", false, []string{"127.0.0.1", "127.0.0.9"}},
	{"ipv6", "::1", false, []string{"::1"}},
	{"every ipv6", "::", true, []string{"::1"}},
	{"dual", "::", false, []string{"::1", "127.0.0.1"}},
}

func TestConnectionsGoToTheMemberThatIsSteeredTo(t *testing.T) {
	for _, c := range groupsTried {
		t.Run(c.name, func(t *testing.T) {
			addr, fds := membersAt(t, c.ip, 4, c.v6only)
			g, err := newGroup(Group{"web", addr, fds})
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range []int{2, 0, 3, 1, 1, 2} {
				if err := g.steer(to); err != nil {
					t.Fatal(err)
				}
				for _, host := range c.dial {
					for range 8 { // a hash would spread them
						conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(addr.Port)))
						if err != nil {
							t.Fatal(err)
						}
						if at := landed(t, fds); len(at) != 1 || at[0] != to {
							t.Fatalf("steered to %d, arrived at %v", to, at)
						}
						conn.Close()
					}
				}
			}
		})
	}
}

// A probe reaches the member that it is aimed at, all others go where they
// are steered to, and afterwards the port of the probe means nothing.
func TestAProbeReachesItsMember(t *testing.T) {
	for _, c := range groupsTried {
		t.Run(c.name, func(t *testing.T) {
			addr, fds := membersAt(t, c.ip, 3, c.v6only)
			g, err := newGroup(Group{"web", addr, fds})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.steer(1); err != nil {
				t.Fatal(err)
			}
			for _, to := range []int{2, 0, 1} {
				conn, err := g.dial(context.Background(), to)
				if err != nil {
					t.Fatal(err)
				}
				if at := landed(t, fds); len(at) != 1 || at[0] != to {
					t.Fatalf("aimed at %d, arrived at %v", to, at)
				}
				conn.Close()
			}
			if len(g.probes) != 0 {
				t.Fatalf("probes left: %v", g.probes)
			}
			// In force while others connect.
			from := net.TCPAddr{IP: g.reach().IP, Port: 1}
			if err := g.attach(1, []probe{{from, 2}, {net.TCPAddr{IP: net.ParseIP("::1"), Port: 2}, 0}}); err != nil {
				t.Fatal(err)
			}
			for _, host := range c.dial {
				conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(addr.Port)))
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				if at := landed(t, fds); len(at) != 1 || at[0] != 1 {
					t.Fatalf("a client arrived at %v", at)
				}
			}
		})
	}
}

// Many checks at once, and a switch, do not get in each other's way.
func TestProbesAtOnce(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	g, err := newGroup(Group{"web", addr, fds})
	if err != nil {
		t.Fatal(err)
	}
	var dialling sync.WaitGroup
	for i := range maxProbes {
		dialling.Add(1)
		go func() { // ends with its connect
			defer dialling.Done()
			conn, err := g.dial(context.Background(), 1+i%2)
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		}()
		if err := g.steer(hold); err != nil {
			t.Error(err)
		}
	}
	dialling.Wait()
	count := map[int]int{}
	for _, at := range landed(t, fds) {
		count[at]++
	}
	if count[0] != 0 || count[1] != maxProbes/2 || count[2] != maxProbes/2 {
		t.Fatalf("arrived: %v", count)
	}
}

// A member's index is checked with the kernel: where it is not what it is
// thought to be, that is found.
func TestAnIndexIsChecked(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	g, err := newGroup(Group{"web", addr, fds})
	if err != nil {
		t.Fatal(err)
	}
	strays := 0
	check := func(m int) error {
		return g.check(context.Background(), m, func(fd int) { unix.Close(fd); strays++ })
	}
	for m := range fds {
		if err := check(m); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody's client in the queue is not thrown away.
	if err := g.steer(2); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := check(2); err != nil || strays != 1 {
		t.Fatalf("%v, %d strays", err, strays)
	}
	// The same without accepting.
	diag, err := openDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer diag.close()
	for m, fd := range fds {
		if err := errors.Join(tag(fd, m), g.checkLent(context.Background(), diag, m)); err != nil {
			t.Fatal(err)
		}
	}
	g.order = []int{0, 2, 1}
	if err := g.checkLent(context.Background(), diag, 1); !errors.Is(err, ErrGroup) {
		t.Fatalf("members in another order, one lent: %v", err)
	}
	landed(t, fds)
	if err := check(1); !errors.Is(err, ErrGroup) {
		t.Fatalf("members in another order: %v", err)
	}
}

// Where no port of its address is free, a probe comes from another address of
// loopback, or where there is none from a port that connects are not given. A range
// of one port, IP_LOCAL_PORT_RANGE in ip(7), that is in use stands for a machine
// whose ports are all in TIME_WAIT.
func TestAProbeNeedsNoFreePortOfOneAddress(t *testing.T) {
	const localPortRange = 51
	given := ephemeralPorts()
	for _, c := range []struct {
		ip     string
		family int
		good   func(from *net.TCPAddr, used int) bool
	}{
		{"127.0.0.1", unix.AF_INET, func(from *net.TCPAddr, used int) bool {
			return from.Port == used && from.IP.IsLoopback() && from.IP.String() != "127.0.0.1"
		}},
		{"::1", unix.AF_INET6, func(from *net.TCPAddr, _ int) bool {
			return from.IP.String() == "::1" && from.Port >= 1024 && (from.Port < given[0] || from.Port > given[1])
		}},
	} {
		t.Run(c.ip, func(t *testing.T) {
			addr, fds := membersAt(t, c.ip, 3, false)
			g, err := newGroup(Group{"web", addr, fds})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.steer(1); err != nil {
				t.Fatal(err)
			}
			newSocket := func() int {
				fd, err := unix.Socket(c.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Close(fd) })
				return fd
			}
			used, free := newSocket(), newSocket()
			if err := bindAt(used, &net.TCPAddr{IP: addr.IP}); err != nil {
				t.Fatal(err)
			}
			sa, err := unix.Getsockname(used)
			if err != nil {
				t.Fatal(err)
			}
			port := int(sockAddr(sa).Port())
			if err := unix.SetsockoptInt(free, unix.IPPROTO_IP, localPortRange, port<<16|port); err != nil {
				t.Fatal(err)
			}
			from := net.TCPAddr{IP: g.reach().IP}
			if err := g.aim(free, &from, func() int { return 2 }); err != nil {
				t.Fatal(err)
			}
			if !c.good(&from, port) {
				t.Fatalf("it comes from %s, where port %d is used", &from, port)
			}
			to := unix.Sockaddr(&unix.SockaddrInet6{Addr: [16]byte(addr.IP.To16()), Port: addr.Port})
			if ip := addr.IP.To4(); ip != nil {
				to = &unix.SockaddrInet4{Addr: [4]byte(ip), Port: addr.Port}
			}
			if err := unix.Connect(free, to); err != nil {
				t.Fatal(err)
			}
			if at := landed(t, fds); len(at) != 1 || at[0] != 2 {
				t.Fatalf("aimed at 2, arrived at %v", at)
			}
			if g.forget(&from); len(g.probes) != 0 {
				t.Fatalf("probes left: %v", g.probes)
			}
		})
	}
}
