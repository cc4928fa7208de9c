package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// With more clients than descriptors the control socket and a promote still
// work, nobody is refused, and those who wait are served when others leave.
func TestExhaustedDescriptors(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: "relay", nofile: 256})
	d.startServing()
	var conns []net.Conn
	for range 400 {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatalf("connection %d was refused: %v", len(conns), err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	d.await("proxyd to take what it can", func() bool { return d.generation(1).InFlight >= 50 })
	if r := d.result("promote", "v2"); !r.Switched {
		t.Fatalf("promote: %+v", r)
	}
	if n := d.generation(1).InFlight; n >= 128 {
		t.Fatalf("%d connections in flight with 256 descriptors", n)
	}
	for _, c := range conns {
		c.Close()
	}
	d.mustAnswer("v2")
}

// Also with few descriptors, taken by clients and by half-sent requests on the
// control socket.
func TestAPromoteWithFewDescriptors(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: "relay", nofile: 128})
	d.startServing()
	for _, from := range []struct {
		network, address string
		n                int
	}{{"tcp", d.address, 300}, {"unix", d.socket(), 100}} {
		for range from.n {
			c, err := net.Dial(from.network, from.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if from.network == "unix" {
				_, _ = c.Write([]byte("GET /v1/sta")) // it may be shut out already
			}
		}
	}
	for _, verb := range [][]string{{"promote", "v2"}, {"revert"}, {"promote", "v3"}} {
		if r := d.result(verb...); !r.Switched {
			t.Fatalf("%v: %+v", verb, r)
		}
	}
}

func TestDescriptorsAreDivided(t *testing.T) {
	for _, c := range []struct{ limit, listeners, draining, control, reserve int }{
		{1 << 20, 1, 8, 64, 64 + 12*9 + 16},
		{1 << 20, 20, 8, 64, 64 + 12*28 + 16},
		{1 << 20, 1, 0, 64, 64 + 12*9 + 16},
		{1024, 1, 8, 64, 64 + 12*9 + 16},
		{256, 1, 8, 16, 128},
		{40, 1, 8, 4, 20},
	} {
		control, reserve := divideDescriptors(c.limit, c.listeners, c.draining)
		if control != c.control || reserve != c.reserve {
			t.Errorf("%+v: %d and %d", c, control, reserve)
		}
	}
}

// max_connections lets the others wait in the queue.
func TestMaxConnectionsWaitInTheQueue(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), toml: "[limits]\nmax_connections = 2\n"})
	d.startServing()
	first, second := dialEcho(t, d.address), dialEcho(t, d.address)
	answered := make(chan string, 1)
	go func() { // ends with the answer, which the closing below lets come
		got, err := d.get("/")
		if err != nil {
			got = err.Error()
		}
		answered <- got
	}()
	first.say(t, "a", "v1 a")
	if got := d.generation(1).InFlight; got != 2 {
		t.Fatalf("%d in flight, max_connections is 2", got)
	}
	select {
	case got := <-answered:
		t.Fatalf("a third connection was answered: %q", got)
	default:
	}
	second.conn.Close()
	if got := <-answered; !strings.HasPrefix(got, "v1") {
		t.Fatalf("after one left: %q", got)
	}
}

// While held, connections wait unrefused; a promote during the hold decides who
// serves them. On the direct path they are served in the order in which they came;
// the relay's loops take them side by side.
func TestHoldAndResume(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "inturn")})
	d.startServing()
	d.mustKeepToThePath()
	d.mustCtl("hold")
	d.awaitState("held")
	clients := d.burst(300)
	before := d.generation(1).Accepted
	d.mustCtl("promote", "v2")
	d.mustKeepToThePath()
	if got := d.generation(1).Accepted; got != before {
		t.Fatalf("%d connections were taken while held", got-before)
	}
	for _, c := range clients {
		if n := unread(t, c); n > 0 {
			t.Fatalf("%d bytes of an answer came while held", n)
		}
	}
	d.mustCtl("resume")
	served := map[string]bool{}
	for i, c := range clients {
		answer, err := io.ReadAll(c)
		_, got, _ := strings.Cut(string(answer), "\r\n\r\n")
		if err != nil || !strings.HasPrefix(got, "v2 ") || served[got] {
			t.Fatalf("client %d after the resume: %q, %v", i, answer, err)
		}
		served[got] = true
		if want := fmt.Sprintf("v2 %d", i); got != want && onThePath() == pathDirect {
			t.Fatalf("client %d of those who waited was served as %q", i, got)
		}
	}
	d.mustKeepToThePath()
	d.mustCtl("hold", "--max", "100ms")
	if d.status().HeldUntil == nil && d.status().State == "held" {
		t.Fatal("status does not say until when it holds")
	}
	d.awaitState("serving")
}

// A promote goes on when the client that asked for it goes away.
func TestAClientThatGoesAwayCancelsNothing(t *testing.T) {
	d := newDaemon(t, setup{command: scripted(t, "serve", "serve"), toml: "[ready]\ncheck = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"test -e " + "$PROXYD_CONTROL.go\"]\n"})
	d.start()
	release := d.socket() + ".go"
	touch(t, release)
	d.awaitState("serving")
	remove(t, release)
	if _, stderr, code := d.ctl("promote", "v2", "--timeout", (50 * time.Millisecond).String()); code != 75 {
		t.Fatalf("promote --timeout: exit %d\n%s", code, stderr)
	}
	touch(t, release)
	d.await("the promote to be done", func() bool { return d.status().Current == 2 })
	d.mustAnswer("v2")
}

// unread counts the bytes that a connection holds unread (SIOCINQ, tcp(7)).
func unread(t *testing.T, c *asking) (n int) {
	t.Helper()
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err == nil {
		if controlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); controlErr != nil {
			err = controlErr
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}
