package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// generationOf is a generation that accepts what it is told to.
type generationOf struct {
	*acceptor
	number  uint64
	clients []net.Conn
}

func newGeneration(t testing.TB, d *Direct, number uint64) *generationOf {
	t.Helper()
	_, fds, err := d.Lend(context.Background(), number)
	if err != nil {
		t.Fatal(err)
	}
	g := &generationOf{acceptor: startAcceptor(t, fds[0]), number: number}
	return g
}

// ssCounts asks ss(8), which is not ours, how many connections to a port each
// process has, and how many wait in listening queues.
func ssCounts(t testing.TB, port int) (byPID map[int]uint64, queued uint64) {
	t.Helper()
	out, err := exec.Command("ss", "-Htanp", fmt.Sprintf("sport = :%d", port)).Output()
	if err != nil {
		t.Fatal(err)
	}
	byPID = map[int]uint64{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if f[0] == "LISTEN" {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			queued += n
			continue
		}
		for _, part := range strings.Split(line, "pid=")[1:] {
			pid, _ := strconv.Atoi(part[:strings.IndexAny(part, ",)")])
			byPID[pid]++
		}
	}
	return byPID, queued
}

// 5,000 connections over 5 generations, taken step by step, are counted as ss
// counts them, also once their generation drains and they were passed to a
// forked worker.
func TestCountsAreExact(t *testing.T) {
	const generations = 5
	each := 1000
	if testing.Short() {
		each = 100
	}
	addr, fds := membersAt(t, "127.0.0.1", generations+2, false)
	_, d := newDirect(t, addr, fds)
	var gens []*generationOf
	check := func(what string) {
		t.Helper()
		byPID, queued := ssCounts(t, addr.Port)
		var waiting uint64
		for _, g := range gens {
			want := byPID[g.cmd.Process.Pid] + byPID[g.worker]
			in, err := d.Waiting(g.number, "web")
			if err != nil {
				t.Fatal(err)
			}
			waiting += uint64(in)
			if err := d.Count(); err != nil {
				t.Fatal(err)
			}
			got := d.InFlight(g.number)
			if got != want+uint64(in) {
				t.Fatalf("%s: generation %d has %d in flight; ss says %d, and %d wait", what, g.number, got, want, in)
			}
		}
		if waiting != queued {
			t.Fatalf("%s: %d wait, ss says %d", what, waiting, queued)
		}
	}
	for n := range uint64(generations) {
		g := newGeneration(t, d, n+1)
		gens = append(gens, g)
		if err := d.Steer(g.number); err != nil {
			t.Fatal(err)
		}
		for range each {
			g.clients = append(g.clients, dialTo(t, addr))
		}
		check("connected")
		g.do("accept", each/2)
		check("half accepted")
		if n > 0 {
			gens[n-1].do("accept", each-each/2) // while it drains
			check("accepted while draining")
		}
	}
	last := gens[generations-1]
	last.do("accept", each-each/2)
	gens[1].do("fork", 0)
	last.do("fork", 0)
	check("passed to a worker")
	gens[0].do("shut", 0)
	check("half-closed by the server")
	gens[0].clients[0].Close()
	gens[0].clients[1].(duplex).CloseWrite()
	check("closed by the client")
	gens[0].do("close", each/4)
	gens[2].do("close", each/4)
	check("closed by the server")
	if err := d.Steer(0); err != nil {
		t.Fatal(err)
	}
	check("none is current")
	for _, g := range gens {
		drained := d.Drained(g.number, nil)
		select {
		case <-drained:
			t.Fatalf("generation %d has drained", g.number)
		default:
		}
		g.kill()
		check(fmt.Sprintf("generation %d has ended", g.number))
		<-drained
	}
}

// Nothing is taken for drained while it waits in the queue, and what another
// generation has in its queue does not keep this one.
func TestAQueueKeepsItsGenerationFromHavingDrained(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	one, two := newGeneration(t, d, 1), newGeneration(t, d, 2)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	client := dialTo(t, addr)
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	other := dialTo(t, addr) // stays in the queue of 2
	defer other.Close()
	drained := d.Drained(1, nil)
	still := func(what string) {
		t.Helper()
		for range 5 { // five looks, and each would have told
			if changed, wanted := d.lookAtDraining(); !wanted {
				t.Fatalf("%s: taken for drained (%v)", what, changed)
			}
		}
		select {
		case <-drained:
			t.Fatalf("%s: taken for drained", what)
		default:
		}
	}
	still("in the queue")
	one.do("accept", 1)
	still("accepted")
	client.Close()
	still("closed by the client only")
	one.do("close", 1)
	<-drained
	if err, n := d.Count(), d.InFlight(2); n != 1 || err != nil {
		t.Fatalf("%d in flight on generation 2, %v", n, err)
	}
	_ = two
}

// Cut resets what the generation has, and nothing else.
func TestCutResetsOneGenerationsConnections(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	one, two := newGeneration(t, d, 1), newGeneration(t, d, 2)
	var clients []duplex
	for _, g := range []*generationOf{one, two} {
		if err := d.Steer(g.number); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			clients = append(clients, dialTo(t, addr))
		}
		g.do("accept", 10)
	}
	if err := d.Cut(1); err != nil {
		t.Fatal(err)
	}
	<-d.Drained(1, nil)
	for _, c := range clients[:10] {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("after the cut: %v", err)
		}
	}
	if err, n := d.Count(), d.InFlight(2); n != 10 || err != nil {
		t.Fatalf("%d in flight on generation 2, %v", n, err)
	}
}

// Where the kernel cannot tell of sockets the error says what it needs.
func TestTheMissingModuleIsNamed(t *testing.T) {
	d, err := openDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	// No module is for such a family, and the answer is the same.
	if err := d.each(unix.AF_APPLETALK, 1, openStates, func(*socketSeen) {}); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "tcp_diag") {
		t.Fatalf("the kernel answers %v", err)
	}
}

// One that cannot be reset does not spare the others, and is told; where nothing may
// be reset, nothing is told.
func TestCutGoesOnAfterAFailure(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	one := newGeneration(t, d, 1)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		dialTo(t, addr)
	}
	one.do("accept", 5)
	calls := 0
	defer func(real func(*diag, *socketSeen) error) { destroy = real }(destroy)
	real := destroy
	destroy = func(g *diag, s *socketSeen) error {
		if calls++; calls == 1 {
			return unix.ENOMEM
		}
		return real(g, s)
	}
	if err := d.Cut(1); !errors.Is(err, unix.ENOMEM) || calls != 5 {
		t.Fatalf("%d of 5 were tried, %v", calls, err)
	}
	if err := d.Count(); err != nil || d.InFlight(1) != 1 {
		t.Fatalf("%d are left, %v", d.InFlight(1), err)
	}
	destroy = func(*diag, *socketSeen) error { return unix.EPERM }
	if err := d.Cut(1); err != nil {
		t.Fatalf("without the right: %v", err)
	}
}

// A handshake that began before the switch and ends after it is the old
// generation's, and is waited for. TCP_DEFER_ACCEPT keeps it from ending until
// the client sends something, see tcp(7).
func TestAHandshakeThatBeganBeforeTheSwitchIsWaitedFor(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	for _, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
	}
	members := map[uint64]int{1: mustLend(t, d, 1), 2: mustLend(t, d, 2)}
	one := &generationOf{acceptor: startAcceptor(t, members[1]), number: 1}
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	client := dialTo(t, addr)
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	drained := d.Drained(1, nil)
	for range 5 {
		if _, wanted := d.lookAtDraining(); !wanted {
			t.Fatal("taken for drained with a handshake under way")
		}
	}
	if n, err := d.Waiting(1, "web"); n != 0 || err != nil {
		t.Fatalf("the handshake is over: %d wait, %v", n, err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	one.do("accept", 1) // it came to generation 1 all the same
	one.do("close", 1)
	client.Close()
	// What is left of it is in TIME_WAIT for a minute, and nobody's.
	eventually(t, "the end of the connection", func() bool {
		var b [1]byte
		_, err := client.Read(b[:])
		return err != nil
	})
	if err, n := d.Count(), d.InFlight(1); n != 0 || err != nil {
		t.Fatalf("%d in flight after the end of the last one, %v", n, err)
	}
	<-drained
}

// A handshake that was seen under way, and whose connection is over at the next
// look, is over: what is left of it is in TIME_WAIT for a minute, without a tag.
func TestAHandshakeThatEndedBetweenTwoLooksIsOver(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	member := mustLend(t, d, 1)
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	client := dialTo(t, addr)
	seen := map[uint64]socketSeen{}
	if err := d.diag.each(unix.AF_INET, addr.Port, openStates, func(s *socketSeen) { seen[s.cookie] = *s }); err != nil || len(seen) != 1 {
		t.Fatal(seen, err)
	}
	unix.Close(acceptFrom(t, member))
	var b [1]byte
	if _, err := client.Read(b[:]); err == nil {
		t.Fatal("the server has not closed first")
	}
	client.Close()
	if err := d.Steer(0); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	tally := d.tallies[1]
	tally.since, tally.looks, tally.handshakes = tally.left, sureLooks, seen
	d.mu.Unlock()
	if err, n := d.Count(), d.InFlight(1); n != 0 || err != nil {
		t.Fatalf("%d in flight after the end of the last one, %v", n, err)
	}
}
