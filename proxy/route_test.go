package proxy

import (
	"bytes"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// inLoop runs f between two turns of l.
func (p *Proxy) inLoop(l *loop, f func()) {
	var done sync.WaitGroup
	done.Add(1)
	l.post(command{what: run, do: f, done: &done})
	done.Wait()
}

// named answers each connection with its name and then echoes until the end.
func named(t *testing.T, network, name string) net.Listener {
	t.Helper()
	ln := listenOn(t, network)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				feed(c, []byte(name))
				drain(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln
}

// hello connects and tells which backend answered.
func hello(t *testing.T, ln net.Listener) (string, net.Conn) {
	c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Error(err)
		return "", nil
	}
	c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 1)
	if _, err := c.Read(b); err != nil {
		t.Error(err)
		c.Close()
		return "", nil
	}
	return string(b), c
}

// Once Switch has returned no later connection reaches the old route, and the
// count of the old one is exact, whatever connects meanwhile.
func TestSwitchIsAFence(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 3})
	backs := []net.Listener{named(t, "unix", "A"), named(t, "tcp", "B")}
	names := []string{"A", "B"}
	routes := []*Route{f.to(t, 1, backs[0].Addr()), f.to(t, 2, backs[1].Addr())}
	f.Switch(routes[0])
	var stop atomic.Bool
	var noise sync.WaitGroup
	var served atomic.Int64
	for range 8 {
		noise.Go(func() {
			for !stop.Load() {
				if _, c := hello(t, f.ln); c != nil {
					served.Add(1)
					c.Close()
				}
			}
		})
	}
	for i := range 100 {
		now := (i + 1) % 2
		f.Switch(routes[now])
		if got, c := hello(t, f.ln); got != names[now] {
			t.Fatalf("switch %d: served by %s after the switch to %s", i, got, names[now])
		} else {
			c.Close()
		}
		old := routes[1-now]
		<-old.Drained()
		if n := old.Counts().InFlight; n != 0 {
			t.Fatalf("switch %d: %d in flight on a drained route", i, n)
		}
	}
	stop.Store(true)
	noise.Wait()
	f.Switch(nil)
	<-routes[0].Drained()
	<-routes[1].Drained()
	a, b := routes[0].Counts(), routes[1].Counts()
	if a.Accepted+b.Accepted != uint64(served.Load())+100 {
		t.Errorf("%d and %d accepted, %d served", a.Accepted, b.Accepted, served.Load()+100)
	}
	if a.ConnectFailures+b.ConnectFailures != 0 {
		t.Error("connect failures", a, b)
	}
}

func TestInFlightAndBytesAreExact(t *testing.T) {
	f := newFront(t, "unix", Config{Loops: 2})
	back := listenOn(t, "tcp")
	r := f.to(t, 7, back.Addr())
	f.Switch(r)
	var clients, backends []duplex
	for range 20 {
		c := dial(t, f.ln)
		b := take(t, back)
		feed(c, pattern(1, 100))
		want(b, pattern(1, 100))
		feed(b, pattern(2, 300))
		want(c, pattern(2, 300))
		clients, backends = append(clients, c), append(backends, b)
	}
	f.Hold()
	if got, want := r.Counts(), (Counts{InFlight: 20, Accepted: 20, BytesFromClients: 2000, BytesToClients: 6000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	f.Switch(nil)
	done := r.Drained()
	for i := range clients {
		select {
		case <-done:
			t.Fatalf("drained with %d left", 20-i)
		default:
		}
		clients[i].Close()
		backends[i].Close()
	}
	<-done
	if n := r.Counts().InFlight; n != 0 || r.Generation() != 7 {
		t.Error(n, r.Generation())
	}
	<-r.Drained() // at once
}

func TestHoldAndResume(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2})
	r := f.to(t, 1, named(t, "unix", "A").Addr())
	f.Switch(r)
	f.Hold()
	var clients []duplex
	for range 30 {
		clients = append(clients, dial(t, f.ln)) // not refused
	}
	if n := r.Counts().Accepted; n != 0 {
		t.Errorf("%d accepted during a hold", n)
	}
	f.Switch(r) // a switch does not end a hold
	if n := r.Counts().Accepted; n != 0 {
		t.Errorf("%d accepted during a hold", n)
	}
	f.Resume()
	for _, c := range clients {
		if got := want(c, []byte("A")); got != "1 bytes" {
			t.Error(got)
		}
	}
}

func TestSwitchToNilWaits(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2, ConnectTimeout: time.Second})
	next := named(t, "tcp", "B")
	back := listenOn(t, "unix")
	gone := f.to(t, 1, &net.UnixAddr{Name: back.Addr().String() + ".gone", Net: "unix"})
	f.Switch(gone)
	early := dial(t, f.ln) // accepted, and its backend is not there
	eventually(t, "a connect is tried", func() bool { return gone.Counts().InFlight == 1 })
	f.Switch(nil)
	late := dial(t, f.ln) // waits in the queue
	<-gone.Drained()
	if got := gone.Counts(); got != (Counts{}) {
		t.Errorf("%+v on a route that served nothing", got)
	}
	r := f.to(t, 2, next.Addr())
	f.Switch(r)
	for _, c := range []duplex{early, late} {
		if got := want(c, []byte("B")); got != "1 bytes" {
			t.Error(got)
		}
	}
	if got := r.Counts(); got.InFlight != 2 || got.Accepted != 2 || got.ConnectFailures != 0 {
		t.Errorf("%+v", got)
	}
}

func TestConnectIsTriedAgain(t *testing.T) {
	t.Run("the socket comes late", func(t *testing.T) {
		f := newFront(t, "tcp", Config{Loops: 1})
		place := listenOn(t, "unix").Addr().String() + ".late"
		r := f.to(t, 1, &net.UnixAddr{Name: place, Net: "unix"})
		f.Switch(r)
		c := dial(t, f.ln)
		feed(c, []byte("early"))
		c.CloseWrite() // it may end before it is connected
		eventually(t, "a connect is tried", func() bool { return r.Counts().InFlight == 1 })
		ln, err := net.Listen("unix", place)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		b := take(t, ln)
		if got := want(b, []byte("early")); got != "5 bytes" {
			t.Error(got)
		}
		if got := drain(b); got != "0 bytes 00000000, end" {
			t.Error(got)
		}
	})
	t.Run("the queue of a unix listener is full", func(t *testing.T) {
		f := newFront(t, "tcp", Config{Loops: 1})
		place := listenOn(t, "unix").Addr().String() + ".full"
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: place}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
		r := f.to(t, 1, &net.UnixAddr{Name: place, Net: "unix"})
		f.Switch(r)
		var clients []duplex
		for range 10 {
			clients = append(clients, dial(t, f.ln))
		}
		eventually(t, "all are in flight", func() bool { return r.Counts().InFlight == 10 })
		for range clients {
			s, _, err := unix.Accept(fd)
			if err != nil {
				t.Fatal(err)
			}
			unix.Write(s, []byte("A"))
			unix.Close(s)
		}
		for _, c := range clients {
			if got := want(c, []byte("A")); got != "1 bytes" {
				t.Error(got)
			}
		}
	})
	t.Run("never", func(t *testing.T) {
		for _, network := range []string{"unix", "tcp"} {
			var log bytes.Buffer // read when all is counted
			f := newFront(t, "tcp", Config{Loops: 1, ConnectTimeout: 50 * time.Millisecond,
				Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn})})
			ln := listenOn(t, network)
			addr := ln.Addr()
			ln.Close()
			os.Remove(addr.String())
			r := f.to(t, 1, addr)
			f.Switch(r)
			for range 3 {
				c := dial(t, f.ln)
				if got := drain(c); got != "0 bytes 00000000, reset" {
					t.Error(network, got)
				}
			}
			eventually(t, "the failures are counted", func() bool {
				return r.Counts() == Counts{Accepted: 3, ConnectFailures: 3}
			})
			f.Seal() // the loop has logged by then
			if n := strings.Count(log.String(), "clients reset: the generation cannot be connected to: generation=1 clients=1 "); n != 1 {
				t.Errorf("%d lines, want one for all:\n%s", n, log.String())
			}
		}
	})
}

func TestCutResetsWhatIsLeft(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2})
	back := listenOn(t, "tcp")
	old := f.to(t, 1, back.Addr())
	f.Switch(old)
	var clients, backends []duplex
	for range 10 {
		clients = append(clients, dial(t, f.ln))
		backends = append(backends, take(t, back))
	}
	next := f.to(t, 2, named(t, "unix", "B").Addr())
	f.Switch(next)
	_, other := hello(t, f.ln)
	old.Cut()
	if n := old.Counts().InFlight; n != 0 {
		t.Errorf("%d in flight after a cut", n)
	}
	<-old.Drained()
	for i := range clients {
		if got := drain(clients[i]); got != "0 bytes 00000000, reset" {
			t.Error(got)
		}
		if got := drain(backends[i]); got != "0 bytes 00000000, reset" {
			t.Error(got)
		}
	}
	if n := next.Counts().InFlight; n != 1 {
		t.Errorf("%d in flight on the route that was not cut", n)
	}
	other.Close()
}

func TestCloseLeavesTheListenerOpen(t *testing.T) {
	ln := listenOn(t, "tcp")
	fd := descriptorOf(t, ln)
	back := listenOn(t, "unix")
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: fd}}, Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.NewRoute(1, map[string]net.Addr{"web": back.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	p.Switch(r)
	c := dial(t, ln)
	take(t, back)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := drain(c); got != "0 bytes 00000000, reset" {
		t.Error(got)
	}
	// Everything is harmless on a closed proxy.
	p.Close()
	p.Switch(nil)
	p.Hold()
	p.Resume()
	r.Cut()
	p.Progress()
	<-r.Drained()
	dial(t, ln) // waits in the queue for the next one
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		t.Error(err)
	}
	take(t, ln)
}

func TestProgress(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2})
	before := f.Progress()
	eventually(t, "every loop takes a turn", func() bool {
		now := f.Progress()
		return len(now) == 2 && now[0] > before[0] && now[1] > before[1]
	})
}

// Long-lived connections spread over the loops although the kernel wakes the
// same sleeping loop first.
func TestLoopsShareConnections(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2})
	back := listenOn(t, "unix")
	f.Switch(f.to(t, 1, back.Addr()))
	for range 100 {
		dial(t, f.ln)
		take(t, back)
	}
	for i, l := range f.loops {
		if n := l.load.Load(); n < 35 {
			t.Errorf("loop %d has %d of 100 connections", i, n)
		}
	}
}

// Switch, Hold and Cut wait for a loop that is in the middle of a turn.
func TestFenceWaitsForEveryLoop(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 3})
	r := f.to(t, 1, listenOn(t, "unix").Addr())
	for name, step := range map[string]func(){
		"Switch": func() { f.Switch(r) }, "Hold": f.Hold, "Resume": f.Resume, "Cut": r.Cut,
	} {
		busy, release := make(chan struct{}), make(chan struct{})
		var released atomic.Bool
		l := f.loops[2]
		l.post(command{what: run, do: func() { close(busy); <-release }})
		<-busy
		var done sync.WaitGroup
		done.Go(func() {
			step()
			if !released.Load() {
				t.Errorf("%s returned before every loop had seen it", name)
			}
		})
		eventually(t, "the command is posted", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.posted) > 0
		})
		time.Sleep(5 * time.Millisecond) // for a fence that does not wait to show
		released.Store(true)
		close(release)
		done.Wait()
	}
}
