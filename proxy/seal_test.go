package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A proxy that ends in order loses no client, whatever connects meanwhile: those
// that it has taken are served, and the others wait for the next one.
func TestWhoWasTakenIsServedAtTheEnd(t *testing.T) {
	for name, end := range map[string]func(p *Proxy){
		"sealed":          (*Proxy).Seal,
		"nobody to serve": func(p *Proxy) { p.Switch(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			ln, back := listenOn(t, "tcp"), named(t, "unix", "A")
			fd := descriptorOf(t, ln)
			var stop atomic.Bool
			var served atomic.Int64
			var clients sync.WaitGroup
			for range 8 {
				clients.Go(func() {
					for !stop.Load() && !t.Failed() {
						if _, c := hello(t, ln); c != nil {
							served.Add(1)
							c.Close()
						}
					}
				})
			}
			for i := range 100 {
				p, err := New(Config{Loops: 2, Listeners: []Listener{{Name: "web", FD: fd}}})
				if err != nil {
					t.Fatal(err)
				}
				r := front{p, ln}.to(t, 1, back.Addr())
				p.Switch(r)
				eventually(t, "clients served", func() bool { return served.Load() > int64(20*i) })
				stop.Store(i == 99)
				if i == 99 {
					clients.Wait()
				}
				end(p)
				<-r.Drained()
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Who was taken and is not connected yet gets there also after a Seal.
func TestSealLeavesTheRoute(t *testing.T) {
	f := newFront(t, "tcp", Config{})
	refusing := listenOn(t, "unix")
	path := refusing.Addr()
	refusing.Close()
	r := f.to(t, 1, path)
	f.Switch(r)
	c := dial(t, f.ln)
	eventually(t, "the client to be taken", func() bool { return r.Counts().InFlight == 1 })
	f.Seal()
	later := dial(t, f.ln)
	back, err := net.Listen("unix", path.String())
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	b := take(t, back)
	feed(b, pattern(1, 10))
	want(c, pattern(1, 10))
	select {
	case <-r.Drained():
		t.Fatal("drained with a client")
	default:
	}
	c.Close()
	b.Close()
	<-r.Drained()
	if n := r.Counts().Accepted; n != 1 {
		t.Errorf("%d were accepted, one of them after the seal", n)
	}
	f.Switch(r)
	feed(take(t, back), pattern(2, 10))
	want(later, pattern(2, 10))
}
