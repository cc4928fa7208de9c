package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMaxConnectionsWaitInTheQueue(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2, MaxConnections: 3})
	back := listenOn(t, "unix")
	r := f.to(t, 1, back.Addr())
	f.Switch(r)
	var clients, backends []duplex
	for range 3 {
		clients = append(clients, dial(t, f.ln))
		backends = append(backends, take(t, back))
	}
	// The next ones are neither refused nor served.
	for range 4 {
		clients = append(clients, dial(t, f.ln))
	}
	eventually(t, "a loop stops accepting", func() bool { return f.crowded.Load() })
	if n := r.Counts().InFlight; n != 3 {
		t.Fatalf("%d in flight, want 3", n)
	}
	// Each that ends lets one of them in.
	for i := range 4 {
		clients[i].Close()
		if got := drain(backends[i]); got != "0 bytes 00000000, end" {
			t.Fatal(got)
		}
		backends[i].Close()
		backends = append(backends, take(t, back))
		if n := r.Counts().InFlight; n > 3 {
			t.Fatalf("%d in flight, want 3 at most", n)
		}
	}
	if n := r.Counts().Accepted; n != 7 {
		t.Errorf("%d accepted, want 7", n)
	}
}

// A peer that does not read costs a bounded amount, and loses nothing.
func TestSlowReaders(t *testing.T) {
	for _, x := range []struct {
		network string
		pipes   int
	}{{"tcp", 0}, {"tcp", 4}, {"tcp", 1000}, {"unix", 0}} {
		t.Run(fmt.Sprintf("%s pipes=%d", x.network, x.pipes), func(t *testing.T) {
			pipes := x.pipes
			const readers, size = 10, 16 << 20
			f := newFront(t, "tcp", Config{Loops: 1})
			f.setPipes(pipes)
			back := listenOn(t, x.network)
			f.Switch(f.to(t, 1, back.Addr()))
			m := pattern(1, size)
			var writers sync.WaitGroup
			var clients []duplex
			for range readers {
				clients = append(clients, dial(t, f.ln))
				b := take(t, back)
				writers.Go(func() { feed(b, m); b.Close() })
			}
			l := f.loops[0]
			eventually(t, "every direction is stuck", func() bool {
				n := 0
				f.inLoop(l, func() {
					l.slab.all(func(c *conn) {
						if c.side[client].is(blocked) {
							n++
						}
					})
				})
				return n == readers
			})
			f.inLoop(l, func() {
				held, lent := l.held, l.lentPipe
				if limit := min(readers, pipes)*spliceSize + readers*streamSize; held+lent*spliceSize > limit {
					t.Errorf("%d bytes held and %d pipes lent for %d readers", held, lent, readers)
				}
				if lent > pipes {
					t.Errorf("%d pipes lent, want at most %d", lent, pipes)
				}
			})
			direct := fmt.Sprintf("%d bytes", size)
			for _, c := range clients {
				if got := want(c, m); got != direct {
					t.Error(got)
				}
				if got := drain(c); got != "0 bytes 00000000, end" {
					t.Error(got)
				}
			}
			writers.Wait()
			f.inLoop(l, func() {
				if l.held != 0 || l.lentPipe != 0 {
					t.Errorf("%d bytes and %d pipes still lent", l.held, l.lentPipe)
				}
			})
		})
	}
}

func (p *Proxy) setPipes(n int) {
	for _, l := range p.loops {
		p.inLoop(l, func() { l.maxPipes = n })
	}
}

func TestIdleTimeouts(t *testing.T) {
	for _, x := range []struct {
		name string
		cfg  Config
		half bool
	}{
		{"idle", Config{IdleTimeout: 300 * time.Millisecond}, false},
		{"half-closed", Config{HalfCloseTimeout: 300 * time.Millisecond}, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.cfg.Loops = 1
			f := newFront(t, "tcp", x.cfg)
			back := listenOn(t, "tcp")
			r := f.to(t, 1, back.Addr())
			f.Switch(r)
			quiet, busy := dial(t, f.ln), dial(t, f.ln)
			b1, b2 := take(t, back), take(t, back)
			if b1.RemoteAddr() == nil || x.half {
				quiet.CloseWrite()
				busy.CloseWrite()
			}
			// One-way traffic is activity: it lives as long as the other takes
			// to be reset, and longer.
			stop := make(chan struct{})
			busyEnd := make(chan struct{})
			go func() {
				defer close(busyEnd)
				for {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
						if w := feed(b2, []byte("tick")); w != "written" {
							t.Error("busy connection: " + w)
							return
						}
					}
				}
			}()
			if got := drain(quiet); got != "0 bytes 00000000, reset" {
				t.Error(got)
			}
			if got := drain(b1); got != "0 bytes 00000000, reset" && !(x.half && got == "0 bytes 00000000, end") {
				t.Error(got)
			}
			eventually(t, "only the busy one is in flight", func() bool { return r.Counts().InFlight == 1 })
			close(stop)
			<-busyEnd
		})
	}
}

func TestConfigRefused(t *testing.T) {
	for _, n := range []int{0, MostListeners + 1} {
		if _, err := New(Config{Listeners: make([]Listener, n)}); !errors.Is(err, ErrListeners) {
			t.Errorf("%d listeners: %v", n, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp)
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tcp)
	for _, fd := range []int{-1, int(null.Fd()), udp, tcp} {
		if _, err := New(Config{Listeners: []Listener{{Name: "web", FD: fd}}}); !errors.Is(err, ErrListener) {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
	f := newFront(t, "tcp", Config{Loops: 1})
	for _, addr := range []net.Addr{nil, &net.UDPAddr{}, &net.UnixAddr{}, &net.TCPAddr{}, &net.UnixAddr{Name: strings.Repeat("x", 108)}} {
		if _, err := f.NewRoute(1, map[string]net.Addr{"web": addr}); !errors.Is(err, ErrAddress) {
			t.Errorf("%v: %v", addr, err)
		}
	}
	if _, err := f.NewRoute(1, nil); !errors.Is(err, ErrNoAddress) {
		t.Error(err)
	}
}
