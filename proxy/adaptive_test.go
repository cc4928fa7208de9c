package proxy

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// manyConnections is what counting must be cheap at. This process has one end of
// each, and the generation's the other.
const manyConnections = 10_000

// establish makes n connections, which the generation takes. They leave no port in
// TIME_WAIT.
func (g *generationOf) establish(addr *net.TCPAddr, n int) {
	g.t.Helper()
	const lot = 1000 // fits in a queue
	for n > 0 {
		now := min(n, lot)
		for range now {
			c := dialTo(g.t, addr)
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				g.t.Fatal(err)
			}
			g.clients = append(g.clients, c)
		}
		g.do("accept", now)
		n -= now
	}
}

// watchedOnAFakeClock has f run while the sockets are watched on a clock that goes on only
// while nobody has anything to do.
func watchedOnAFakeClock(t *testing.T, d *Direct, f func()) {
	t.Helper()
	begin := func() {
		d.kick, d.quit, d.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
		go d.watch()
	}
	end := func() {
		close(d.quit)
		<-d.ended
	}
	end()
	defer begin() // Close ends it
	synctest.Test(t, func(*testing.T) {
		begin()
		defer end()
		f()
	})
}

// looksAt tells how often a draining generation was looked at.
func (d *Direct) looksAt(generation uint64) int {
	d.counting.Lock()
	defer d.counting.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tallies[generation].looks
}

// With 10,000 connections open on a generation that drains: while nothing changes
// there is a look a second at most. While something always does, looks have their
// share of a processor and no more. The clock is a fake one, so what is bounded is
// the number of looks, on any machine; what each costs is measured.
func TestLooksAreFewHoweverManyConnections(t *testing.T) {
	n := manyConnections
	if testing.Short() {
		n = 2 * fewSockets
	}
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	one := newGeneration(t, d, 1)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	one.establish(addr, n)
	if err := d.Steer(0); err != nil {
		t.Fatal(err)
	}
	cost := cheapestLook(t, d)
	if got := d.InFlight(1); got != uint64(n) {
		t.Fatalf("%d of %d counted", got, n)
	}
	drained := d.Drained(1, nil)
	watchedOnAFakeClock(t, d, func() {
		const quiet = time.Minute
		before := d.looksAt(1)
		time.Sleep(quiet)
		// 2, 4, ... 1024 ms, and then a second each; or up to mostPause on a machine
		// where a look is dear.
		got, most, least := d.looksAt(1)-before, 11+int(quiet/lastLook), int(quiet/mostPause)
		t.Logf("%d looks in a quiet minute at %d connections, the cheapest took %s", got, n, cost)
		if got > most || got < least {
			t.Errorf("%d looks in %s without a change, not %d to %d", got, quiet, least, most)
		}
		const changes, every = 200, 10 * time.Millisecond
		before = d.looksAt(1)
		for range changes {
			one.do("close", 1)
			time.Sleep(every)
		}
		got, most = d.looksAt(1)-before, 2+int(2*changes*every/(lookShare*cost))
		t.Logf("%d looks over %s of changes", got, changes*every)
		if got > most || got < 1 {
			t.Errorf("%d looks in %s, %d would take twice their share", got, changes*every, most)
		}
	})
	one.kill()
	<-drained
}

// cheapestLook gives the least CPU time of some looks.
func cheapestLook(t *testing.T, d *Direct) time.Duration {
	t.Helper()
	runtime.LockOSThread() // its CPU time is measured
	defer runtime.UnlockOSThread()
	least := time.Hour
	for range 5 {
		before := threadTime()
		if err := d.Count(); err != nil {
			t.Fatal(err)
		}
		least = min(least, threadTime()-before)
	}
	return least
}
