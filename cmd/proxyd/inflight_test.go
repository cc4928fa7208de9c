package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// echo is an idle connection that now and then says something, as a WebSocket
// does.
type echo struct {
	conn  net.Conn
	lines *bufio.Reader
}

func dialEcho(t *testing.T, address string) *echo {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e := &echo{conn, bufio.NewReader(conn)}
	e.patiently(t)
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: test\r\n\r\n")
	for {
		line, err := e.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return e
		}
	}
}

// patiently bounds the wait for what comes next.
func (e *echo) patiently(t *testing.T) {
	t.Helper()
	if err := e.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

func (e *echo) say(t *testing.T, word, want string) {
	t.Helper()
	e.patiently(t)
	if _, err := fmt.Fprintln(e.conn, word); err != nil {
		t.Fatal(err)
	}
	if got, err := e.lines.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("the idle connection answered %q, %v, want %q", got, err, want)
	}
}

func TestInFlightConnectionsFinishOnTheOldGeneration(t *testing.T) {
	t.Parallel()  // it only waits for most of its time
	lines := 1200 // 60 s
	if testing.Short() {
		lines = 60
	}
	d := newDaemon(t, setup{command: self(t, "serve"), toml: "[drain]\nkeep_previous = \"0s\"\n"})
	d.startServing()
	download := startDrip(t, d.address, lines, "v1")
	idle := dialEcho(t, d.address)
	if got := d.generation(1).InFlight; got != 2 {
		t.Fatalf("in flight before the promote: %d, want 2", got)
	}
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	d.mustKeepToThePath()
	idle.say(t, "hello", "v1 hello")
	if g := d.generation(1); g.InFlight != 2 || string(g.State) != "draining" || g.DrainDeadline == nil {
		t.Fatalf("generation 1 after the promote: %+v", g)
	}
	<-download.ended
	if download.err != nil {
		t.Fatal(download.err)
	}
	d.await("the download to be counted out", func() bool { return d.generation(1).InFlight == 1 })
	if got := d.generation(1).State; string(got) != "draining" {
		t.Fatalf("generation 1 is %s while a connection is in flight", got)
	}
	d.mustKeepToThePath()
	idle.say(t, "still there?", "v1 still there?")
	idle.conn.Close()
	d.awaitGeneration(1, "stopped")
}

func TestDrainDeadlineCutsThenAndNotBefore(t *testing.T) {
	const deadline = 2 * time.Second
	d := newDaemon(t, setup{command: self(t, "serve"), toml: "[drain]\ndeadline = \"2s\"\n"})
	d.startServing()
	download := startDrip(t, d.address, 1<<20, "v1")
	before := time.Now()
	d.mustCtl("promote", "v2")
	d.mustKeepToThePath()
	<-download.ended
	if download.err == nil {
		t.Fatal("the download ended by itself")
	}
	// Not before is the promise; how long after says the machine's load.
	if took := download.when.Sub(before); took < deadline {
		t.Fatalf("cut after %s, the drain deadline is %s", took, deadline)
	}
	d.awaitGeneration(1, "stopped")
	d.mustAnswer("v2")
}

func TestMaxDrainingCutsTheOldest(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), toml: "[drain]\nmax_draining = 2\n"})
	d.startServing()
	first := dialEcho(t, d.address)
	d.mustCtl("promote", "v2")
	second := dialEcho(t, d.address)
	d.mustCtl("promote", "v3")
	third := dialEcho(t, d.address)
	d.mustKeepToThePath()
	second.say(t, "a", "v2 a")
	first.say(t, "a", "v1 a")
	d.mustCtl("promote", "v4")
	first.patiently(t)
	if _, err := first.lines.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the oldest generation's connection lives on")
	}
	second.say(t, "b", "v2 b")
	third.say(t, "b", "v3 b")
	d.mustKeepToThePath()
	d.awaitGeneration(1, "stopped")
}
