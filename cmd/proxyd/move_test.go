package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
)

// passMembers passes a group of n sockets, as a .socket unit with n lines does. The
// files end with the test.
func (d *daemonUnderTest) passMembers(n int) (files []*os.File) {
	d.t.Helper()
	group, err := activation.ListenGroup("http", d.address, n)
	if err != nil {
		d.t.Fatal(err)
	}
	// systemd steers nobody: the kernel spreads clients over all.
	if err := unix.SetsockoptInt(group[0].FD, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0); err != nil {
		d.t.Fatal(err)
	}
	for _, l := range group {
		fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			d.t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), l.Name))
		l.Close()
	}
	d.t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	d.pass(files...)
	return files
}

// outOfMembers starts a daemon whose third generation is relayed, because the
// first has the connection that is given, and the second stands by.
func outOfMembers(t *testing.T, s setup) (*daemonUnderTest, *echo) {
	t.Helper()
	s.command, s.path = self(t, "serve"), pathAuto
	s.toml += "[promote]\nprobation = \"0s\"\n"
	d := newDaemon(t, s)
	d.passMembers(3)
	d.startServing()
	first := dialEcho(t, d.address)
	d.mustCtl("promote", "v2")
	d.mustBeDirect()
	d.mustCtl("promote", "v3")
	d.mustMoveLater()
	return d, first
}

// mustMoveLater wants generation 3 to be current, and relayed for want of a
// member.
func (d *daemonUnderTest) mustMoveLater() {
	d.t.Helper()
	st := d.status()
	if l := st.Listeners[0]; st.Current != 3 || l.Path != pathRelay || l.Reason != "no free member; moves by itself" {
		d.t.Fatalf("generation %d is current, listener %+v", st.Current, l)
	}
	d.mustAnswer("v3")
}

// A generation that was started on the relay for want of a member leaves it once
// there is one: another one of its release takes its place. No client notices, and
// a revert goes where it went before.
func TestMovesToTheDirectPath(t *testing.T) {
	d, first := outOfMembers(t, setup{})
	d.kill9() // the next proxyd knows why generation 3 is on the relay
	d.start()
	d.awaitState("serving")
	d.mustMoveLater()
	third := dialEcho(t, d.address)
	l := startTraffic(t, d.address)
	l.runFor(50)
	first.say(t, "hi", "v1 hi")
	first.conn.Close()
	d.await("generation 4 to be current", func() bool { return d.status().Current == 4 })
	d.mustBeDirect()
	d.mustAnswer("v3")
	if st := d.status(); st.Previous != 2 || d.generation(4).Release != "v3" {
		t.Errorf("status after the move: %+v", st)
	}
	l.runFor(50)
	if g := d.generation(3); g.State != "draining" || g.InFlight == 0 {
		t.Errorf("the generation that was left: %+v", g)
	}
	third.say(t, "hi", "v3 hi")
	third.conn.Close()
	l.runFor(50)
	l.stop() // some of its clients keep their connections
	d.awaitGeneration(3, "stopped")
	l.check()
	for _, want := range [][]string{
		{"starting", "4 (v3)", "proxyd", "to the direct path: a member is free now"},
		{"moved", "4 (v3)", " 3 ", "proxyd", "to the direct path: a member is free now"},
	} {
		if !hasLine(d.mustCtl("history"), want) {
			t.Errorf("history has no line with %q:\n%s", want, d.mustCtl("history"))
		}
	}
	if r := d.result("revert"); r.Generation != 2 || r.Started {
		t.Errorf("revert: %+v", r)
	}
	d.mustAnswer("v2")
	d.mustBeDirect()
}

// hasLine tells whether one line of text has all of these.
func hasLine(text string, all []string) bool {
next:
	for line := range strings.Lines(text) {
		for _, part := range all {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		return true
	}
	return false
}

// A move whose generation is not ready changes nothing, and is not tried over
// and over; what an operator asks for does not wait for it.
func TestAMoveThatFails(t *testing.T) {
	healthy := filepath.Join(shortTempDir(t), "healthy")
	touch(t, healthy)
	d, first := outOfMembers(t, setup{
		toml: "[ready]\ncheck = \"command\"\ncommand = [\"test\", \"-e\", \"" + healthy + "\"]\ninterval = \"10ms\"\ndeadline = \"1s\"\n",
	})
	remove(t, healthy)
	l := startTraffic(t, d.address)
	first.conn.Close()
	d.await("the move to fail", func() bool {
		return hasLine(d.mustCtl("history"), []string{"failed", "4 (v3)", "it was not ready within 1s"})
	})
	d.mustMoveLater()
	l.runFor(50)
	touch(t, healthy)
	if r := d.result("promote"); r.Generation != 5 || r.Previous != 3 {
		t.Errorf("promote: %+v", r)
	}
	d.mustBeDirect()
	l.stop()
	l.check()
}

// What is started for a move is of no use on the relay.
func TestAMoveNeverEndsOnTheRelay(t *testing.T) {
	direct := newDirectPath(hclog.NewNullLogger())
	direct.why = reasonNoMember
	s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, hclog.NewNullLogger())
	s.direct = direct
	config := &Config{}
	if k, err := s.open(3, config, backend.Launch{Moves: true}); err == nil || !strings.Contains(err.Error(), reasonNoMember) {
		t.Errorf("it gets %+v, %v", k, err)
	}
	if len(direct.reasons) > 0 || len(s.kept) > 0 {
		t.Errorf("kept %v, reasons %v", s.kept, direct.reasons)
	}
	insists := &Config{Backend: BackendConfig{Path: pathDirect}}
	if k, err := s.open(3, insists, backend.Launch{Staged: true}); err == nil || !strings.Contains(err.Error(), reasonNoMember) {
		t.Errorf("where the config insists it gets %+v, %v", k, err)
	}
	k, err := s.open(3, insists, backend.Launch{})
	if err != nil || len(k.handed) != 1 {
		t.Errorf("any other gets %+v, %v", k, err)
	}
	s.release(3)
}

// Where the config insists on the direct path, a promote that finds no free socket
// is refused, with what to do about it, and is done once there is one. What clients
// depend on is not: a revert goes back over the relay.
func TestDirectThatIsDemandedAndCannotBeJustNow(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: pathDirect, toml: "[promote]\nprobation = \"0s\"\n"})
	d.passMembers(3)
	d.startServing()
	first := dialEcho(t, d.address)
	d.mustCtl("promote", "v2")
	second := dialEcho(t, d.address)
	_, stderr, code := d.ctl("promote", "v3")
	for _, want := range []string{"no free member", "proxyctl retire", `path = "auto"`} {
		if code != 5 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, without %q: %s", code, want, stderr)
		}
	}
	if st := d.status(); st.Current != 2 {
		t.Errorf("generation %d is current", st.Current)
	}
	d.mustAnswer("v2")
	d.mustBeDirect()
	first.say(t, "hi", "v1 hi")
	first.conn.Close()
	d.awaitGeneration(1, "standby")
	d.mustCtl("retire")
	d.awaitGeneration(1, "stopped")
	d.mustCtl("promote", "v3")
	d.mustAnswer("v3")
	d.mustBeDirect()
	d.mustCtl("revert", "--to", "1")
	d.mustAnswer("v1")
	if l := d.status().Listeners[0]; l.Path != pathRelay || l.Reason != "no free member; moves by itself" {
		t.Errorf("listener after the revert: %+v", l)
	}
	second.say(t, "hi", "v2 hi")
	second.conn.Close()
}
