package main

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Clients that came while systemd alone held the sockets wait in the queues of all
// of them. The first generation is on the direct path all the same, is started
// once, gets none of them before it is proven ready, and answers each of them.
func TestAColdStartWithWaitingClients(t *testing.T) {
	healthy := filepath.Join(shortTempDir(t), "healthy")
	d := newDaemon(t, setup{
		command: self(t, "serve"), path: pathDirect,
		toml: "[ready]\ncheck = \"command\"\ncommand = [\"test\", \"-e\", \"" + healthy + "\"]\ninterval = \"10ms\"\n",
	})
	d.passMembers(4)
	clients := d.burst(100)
	d.start()
	d.await("generation 1 to run", func() bool {
		st := d.status()
		return len(st.Generations) == 1 && st.Generations[0].PID != 0
	})
	if g := d.generation(1); g.Path != pathDirect || g.InFlight != 0 {
		t.Fatalf("before it is proven ready: %+v", g)
	}
	clients = append(clients, d.burst(50)...)
	touch(t, healthy)
	for i, c := range clients {
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v1 1") {
			t.Fatalf("client %d of %d got %q, %v", i, len(clients), answer, err)
		}
		c.Close()
	}
	d.mustBeDirect()
	if st := d.status(); len(st.Generations) != 1 || st.Current != 1 {
		t.Errorf("status: %+v", st)
	}
	if history := d.mustCtl("history"); strings.Count(history, "starting") != 1 {
		t.Errorf("history:\n%s", history)
	}
	d.mustCtl("promote", "v2")
	d.mustBeDirect()
	d.mustAnswer("v2")
}

// A handshake that is under way when proxyd is started again may end at any free
// socket. So a promote finds none, is relayed, and moves once the handshake is over.
// TCP_DEFER_ACCEPT keeps it from ending until the client sends something, see tcp(7).
func TestAPromoteWhileAHandshakeFromBeforeARestartIsUnderWay(t *testing.T) {
	d := newDaemon(t, setup{
		command: self(t, "serve"), path: pathAuto,
		toml: "[ready]\ncheck = \"http\"\npath = \"/healthz\"\n[promote]\nprobation = \"0s\"\n",
	})
	for _, f := range d.passMembers(4) {
		if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
	}
	d.startServing()
	d.kill9()
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.start()
	d.awaitState("serving")
	d.mustBeDirect()
	d.mustCtl("promote", "v2")
	if l := d.status().Listeners[0]; l.Path != pathRelay || l.Reason != "no free member; moves by itself" {
		t.Fatalf("listener: %+v", l)
	}
	d.mustAnswer("v2")
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v1 1") {
		t.Fatalf("it got %q, %v", answer, err)
	}
	d.await("generation 3 to be current", func() bool { return d.status().Current == 3 })
	d.mustBeDirect()
	d.mustAnswer("v2")
}
