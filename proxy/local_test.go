package proxy

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// congestion gives the congestion control of both sides of the one connection.
func congestion(t *testing.T, f front) (names [2]string) {
	t.Helper()
	f.inLoop(f.loops[0], func() {
		f.loops[0].slab.all(func(c *conn) {
			for at := range c.side {
				name, err := unix.GetsockoptString(int(c.side[at].fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
				if err != nil {
					t.Error(err)
				}
				names[at] = strings.TrimRight(name, "\x00")
			}
		})
	})
	return names
}

// Where the kernel paces by default a stream within this machine is not paced,
// in its own direction only, and messages pay nothing for that. From the first
// upload on backends are connected to without pacing.
func TestStreamsWithinTheMachineAreNotPaced(t *testing.T) {
	for _, pacing := range []bool{true, false} {
		ln, back := listenPlain(t), listenPlain(t)
		fd := descriptorOf(t, ln)
		p, err := New(Config{Loops: 1, Listeners: []Listener{{Name: "web", FD: fd}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		if p.paced = 0; pacing {
			p.paced = paced
		}
		r, err := p.NewRoute(1, map[string]net.Addr{"web": back.Addr()})
		if err != nil {
			t.Fatal(err)
		}
		// Clients start with another than reno, whatever is usual here.
		usual, other := congestionOfNew(t), "cubic"
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, other); err != nil {
			other = usual // this kernel has none
		}
		p.Switch(r)
		f := front{p, ln}
		c, b := dial(t, ln), take(t, back)
		expect := func(what, client, backend string) {
			t.Helper()
			if !pacing {
				client, backend = other, usual
			}
			if got := congestion(t, f); got != [2]string{client, backend} {
				t.Errorf("pacing %v, %s: %v, want %s and %s", pacing, what, got, client, backend)
			}
		}
		var s seen
		smallMessages(c, b, &s, 50)
		expect("messages", other, usual)
		downStream(c, b, &s, fewMiB)
		expect("a stream down", unpaced, usual)
		upStream(c, b, &s, fewMiB)
		expect("a stream up", unpaced, unpaced)
		c.Close()
		drain(b)
		b.Close()
		eventually(t, "it is over", func() bool { return r.Counts().InFlight == 0 })
		dial(t, ln)
		take(t, back)
		expect("a new connection", other, unpaced)
	}
}

func congestionOfNew(t *testing.T) string {
	t.Helper()
	fd, errno := socket(unix.AF_INET)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer unix.Close(int(fd))
	name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(name, "\x00")
}
