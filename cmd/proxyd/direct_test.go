package main

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mustBeDirect wants the current generation on the direct path.
func (d *daemonUnderTest) mustBeDirect() {
	d.t.Helper()
	if l := d.status().Listeners; len(l) != 1 || l[0].Path != pathDirect || l[0].Reason != "" || l[0].Address != d.address {
		d.t.Fatalf("listeners: %+v", l)
	}
}

func TestTheDirectPathIsTaken(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	d.mustBeDirect()
}

// What cannot be direct is served by the relay, and status says why.
func TestReasonsForTheRelay(t *testing.T) {
	socket := filepath.Join(shortTempDir(t), "web.sock")
	serve := self(t, "serve")
	for reason, s := range map[string]setup{
		"unix listener":                      {command: serve, address: "unix:" + socket},
		"backend binds by itself":            {command: self(t, "bind", "{address}")},
		`path = "relay"`:                     {command: serve, path: pathRelay},
		"limits.max_connections is for":      {command: serve, toml: "[limits]\nmax_connections = 5\n"},
		"limits.idle_timeout is for":         {command: serve, toml: "[limits]\nidle_timeout = \"1h\"\n"},
		"backend.family is for":              {command: serve, backend: `family = "unix"`},
		`listener "http" speaks the PROXY p`: {command: self(t, "serve"), listener: `proxy_protocol = "v1"`},
	} {
		t.Run(reason, func(t *testing.T) {
			if s.path == "" {
				s.path = pathAuto
			}
			d := newDaemon(t, s)
			d.start()
			d.await("generation 1", func() bool { return len(d.status().Generations) == 1 })
			l := d.status().Listeners
			if len(l) != 1 || l[0].Path != pathRelay || !strings.HasPrefix(l[0].Reason, reason) {
				t.Fatalf("listeners: %+v", l)
			}
			if out := d.mustCtl("status"); !strings.Contains(out, "relay ("+reason) {
				t.Errorf("status shows\n%s", out)
			}
		})
	}
}

// Where the config insists on the direct path and it cannot be, that is an error
// that names the key.
func TestDirectThatCannotBe(t *testing.T) {
	for want, s := range map[string]setup{
		"limits.max_connections: holds for the relay only": {command: self(t, "serve"), toml: "[limits]\nmax_connections = 5\n"},
		`backend.path: "direct" needs a program that is`:   {command: self(t, "bind", "{address}")},
		`backend.path: "direct" needs TCP listeners`:       {command: self(t, "serve"), address: "unix:/tmp/none.sock"},
	} {
		s.path = pathDirect
		d := newDaemon(t, s)
		d.mustRefuse(want)
	}
}

// A burst of clients that nobody accepts yet is spread over the queues of two
// generations by switches, and none is lost: neither what waits in the queue of
// a generation that is killed while it drains, nor in that of the current one.
func TestFullQueuesAcrossSwitchesAndKills(t *testing.T) {
	const each = 300
	dir := shortTempDir(t)
	gate := filepath.Join(dir, "open")
	d := newDaemon(t, setup{command: self(t, "slow", gate), path: pathDirect, toml: "[promote]\nprobation = \"0s\"\n"})
	touch(t, gate)
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	d.mustAnswer("v2")
	remove(t, gate)
	for _, id := range []uint64{1, 2} { // both are in accept, which one client ends
		d.switchTo(id)
		_ = d.burst(1)
	}
	var clients []*asking
	burst := func() { clients = append(clients, d.burst(each)...) }
	d.switchTo(1)
	burst()
	d.switchTo(2)
	burst()
	d.switchTo(1)
	burst()
	if n := d.generation(2).InFlight; n < each {
		t.Fatalf("%d in flight on generation 2, which has %d in its queue", n, each)
	}
	kill(t, d.generation(2).PID) // it drains
	d.awaitGeneration(2, "failed", "stopped")
	burst()
	kill(t, d.generation(1).PID) // it is current
	burst()
	touch(t, gate)
	for i, c := range clients {
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v1 1") {
			t.Fatalf("client %d of %d got %q, %v", i, len(clients), answer, err)
		}
		c.Close()
	}
}

// switchTo makes one of two running generations current.
func (d *daemonUnderTest) switchTo(id uint64) {
	d.t.Helper()
	if d.status().Current != id {
		d.mustCtl("revert", "--to", fmt.Sprint(id))
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// asking is a client of one request.
type asking struct{ net.Conn }

func (d *daemonUnderTest) burst(n int) (clients []*asking) {
	d.t.Helper()
	for range n {
		c := d.connect()
		c.ask()
		clients = append(clients, c)
	}
	return clients
}

// connect gives a client that has not asked yet.
func (d *daemonUnderTest) connect() *asking {
	d.t.Helper()
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		d.t.Fatalf("refused: %v", err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &asking{c}
}

func (c *asking) ask() {
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
}

// proxyd is killed again and again under load, and promotes after each return:
// no client notices, as proxyd is not in their way. The sockets are its own, had
// back from the generations; systemd's are tried in systemd/trial.
func TestKilledUnderLoadAndNobodyNotices(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: pathDirect})
	d.startServing()
	idle := dialEcho(t, d.address)
	l := startTraffic(t, d.address)
	group := d.listeningSockets()
	for i := range 3 {
		pid := d.generation(d.status().Current).PID
		d.kill9()
		l.runFor(50) // with nobody there
		d.start()
		d.awaitState("serving")
		d.mustBeDirect()
		l.runFor(50)
		d.mustBeRecognised(group)
		if got := d.generation(d.status().Current).PID; got != pid {
			t.Fatalf("the current generation was not taken over: process %d, was %d", got, pid)
		}
		release := fmt.Sprintf("v%d", i+2)
		d.mustCtl("promote", release)
		d.mustAnswer(release)
		l.runFor(50)
		idle.say(t, "hi", "v1 hi")
	}
	l.stop()
	l.check()
	d.await("the idle connection to be the last on generation 1", func() bool { return d.generation(1).InFlight == 1 })
	idle.say(t, "hi", "v1 hi")
	idle.conn.Close()
	d.awaitGeneration(1, "stopped")
}

// listeningSockets lists the sockets that listen at the address, by what ss(8) says
// of each: its cookie, which no other socket ever has.
func (d *daemonUnderTest) listeningSockets() (sockets []string) {
	d.t.Helper()
	_, port, _ := net.SplitHostPort(d.address)
	out, err := exec.Command("ss", "-Htlne", "sport = :"+port).Output()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "sk:") {
			sockets = append(sockets, word)
		}
	}
	if len(sockets) < fewestMembers {
		d.t.Fatalf("ss lists the sockets %q", sockets)
	}
	slices.Sort(sockets)
	return sockets
}

// mustBeRecognised wants a proxyd that was started again to have found a group as it
// was, and to have left it so: the sockets are the same, and the relay, which has
// the hold member and those of nobody, was given no client since.
func (d *daemonUnderTest) mustBeRecognised(group []string) {
	d.t.Helper()
	if now := d.listeningSockets(); !slices.Equal(now, group) {
		d.t.Errorf("the sockets that listen were %q and are %q", group, now)
	}
	for _, g := range d.status().Generations {
		if g.Accepted != 0 {
			d.t.Errorf("the relay took %d clients for generation %d, which the kernel gave to nobody's socket", g.Accepted, g.ID)
		}
	}
	for _, want := range []string{"the sockets of the last proxyd are there, all of them", "new connections go where they went before"} {
		if !strings.Contains(d.log.String(), want) {
			d.t.Errorf("the log does not say %q:\n%s", want, d.log)
		}
	}
	if log := d.log.String(); strings.Contains(log, "steered anew") {
		d.t.Errorf("it steers anew:\n%s", log)
	}
}

// A program that closes descriptors it was not told of leaves a proxyd that was killed
// together with its holder no group to come back to. It is replaced, on the relay, and
// the service is back.
func TestKilledBeforeAProgramThatClosesDescriptors(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "closes")})
	d.startServing()
	d.mustBeDirect()
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	d.kill9Holder()
	d.start()
	d.awaitState("serving")
	d.mustAnswer("v2")
	if l := d.status().Listeners[0]; l.Path != pathRelay || l.Reason != "not every address has a group of sockets" {
		t.Errorf("listener: %+v", l)
	}
	if want := "[WARN]  proxyd: some sockets of the last proxyd are gone"; !strings.Contains(d.log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, d.log)
	}
	d.mustCtl("promote", "v3")
	d.mustAnswer("v3")
}
