package proxy

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// recognised makes a Direct anew over a group that an earlier one left steered to
// generation 2, of two, and has it steer there as well, with clients all the while.
// It gives where they came to, and what was said.
func recognised(t *testing.T, v6 bool, between func(g *group)) (came map[int]int, member int, said string) {
	t.Helper()
	ip := "127.0.0.1"
	if v6 {
		ip = "::1"
	}
	addr, fds := membersAt(t, ip, 5, false)
	_, before := newDirect(t, addr, fds)
	members := map[uint64]int{}
	for _, n := range []uint64{1, 2} {
		m, _, err := before.Lend(context.Background(), n)
		if err != nil {
			t.Fatal(err)
		}
		members[n] = m
	}
	if err := before.Steer(2); err != nil {
		t.Fatal(err)
	}
	between(before.groups[0])

	clients, stop, ended := map[int]bool{}, make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		for range 1000 { // all have room in a queue, and that is half empty
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.DialTCP("tcp", nil, addr)
			if err != nil {
				t.Error(err)
				return
			}
			clients[c.LocalAddr().(*net.TCPAddr).Port] = true
			defer c.Close()
		}
	}()
	// Where they come to is looked at only in the end: the relay must leave them.
	var log bytes.Buffer
	listeners := []Listener{}
	for i, fd := range fds {
		listeners = append(listeners, Listener{Name: "web", FD: fd, Member: i > 0})
	}
	p, err := New(Config{Listeners: listeners})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	d, err := NewDirect(DirectConfig{Groups: []Group{{"web", addr, fds}}, Proxy: p,
		Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	for n, m := range members {
		if _, err := d.Keep(n, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-ended
	last := dialTo(t, addr)
	came = map[int]int{}
	for m, fd := range fds {
		for {
			got, sa, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			unix.Close(got)
			if sockAddr(sa) == localAddr(last) && m != members[2] {
				t.Errorf("a client that came afterwards was given to member %d", m)
			}
			if clients[int(sockAddr(sa).Port())] { // else it is one of the checks
				came[m]++
			}
		}
	}
	if len(clients) == 0 {
		t.Fatal("no client came meanwhile")
	}
	return came, members[2], log.String()
}

// A group that is as it was left is recognised: not one client that comes while
// another Direct takes over is given to another member, not even to the hold member.
func TestAGroupIsRecognised(t *testing.T) {
	for name, v6 := range map[string]bool{"ipv4": false, "ipv6": true} {
		t.Run(name, func(t *testing.T) {
			came, member, said := recognised(t, v6, func(*group) {})
			if len(came) != 1 || came[member] == 0 {
				t.Fatalf("clients came to %v, all are for member %d", came, member)
			}
			if !strings.Contains(said, "new connections go where they went before") || strings.Contains(said, "[WARN]") || strings.Contains(said, "[ERROR]") {
				t.Fatalf("it says\n%s", said)
			}
		})
	}
}

// A group that is not as it was left is steered anew, and that is said.
func TestAGroupThatIsNotAsItWasLeftIsSteeredAnew(t *testing.T) {
	came, member, said := recognised(t, false, func(g *group) {
		if err := g.attach(4, nil); err != nil { // another program
			t.Fatal(err)
		}
	})
	delete(came, member)
	if came[4] == 0 || len(came) != 1 {
		t.Fatalf("clients came to %v beside member %d", came, member)
	}
	if !strings.Contains(said, "[WARN]  new connections went elsewhere than was left, and are steered anew") || !strings.Contains(said, "went=4") {
		t.Fatalf("it says\n%s", said)
	}
}
