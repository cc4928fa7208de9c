package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listening gives n sockets that listen at an address, as a .socket unit's are. With
// reuse they are a group, as with ReusePort=yes.
func listening(t *testing.T, network, address string, n int, reuse bool) (files []*os.File) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if !reuse {
			return nil
		}
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if err == nil {
			err = controlErr
		}
		return err
	}}
	config.SetMultipathTCP(false) // systemd's are not
	for range n {
		l, err := config.Listen(context.Background(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		f, err := l.(interface{ File() (*os.File, error) }).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files
}

// otherUser becomes another user, who may still read what is root's here: the
// programs under test, and their directories.
func otherUser(t *testing.T) []string {
	t.Helper()
	needRoot(t)
	return []string{need(t, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups",
		"--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"}
}

// defaultLines is how many lines a .socket unit needs under a config that says
// nothing of it.
const defaultLines = 8 + restMembers

// linesMissing is what is said of a unit with some lines, where they are too few.
func linesMissing(have int) string {
	return fmt.Sprintf("add the line ListenStream=ADDRESS to it %d more times, under ReusePort=yes", defaultLines-have)
}

// What a .socket unit passes and cannot be steered is served by the relay, and
// status and the log say why; where the config insists on the direct path proxyd
// does not start.
func TestSocketsOfAUnitThatCannotBeSteered(t *testing.T) {
	path := shortTempDir(t) + "/web.sock"
	for name, c := range map[string]struct {
		pass    func(t *testing.T, address string) []*os.File
		address string
		wrap    func(t *testing.T) []string
		reason  string
		insists string // what it says with path = "direct"
	}{
		"no ReusePort=": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "tcp4", address, 1, false) },
			reason:  "the .socket unit has no ReusePort=yes with a ListenStream= line for each generation",
			insists: linesMissing(1),
		},
		"one line": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "tcp4", address, 1, true) },
			reason:  "the .socket unit has no ReusePort=yes with a ListenStream= line for each generation",
			insists: linesMissing(1),
		},
		"another user's": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "tcp4", address, 1, true) },
			wrap:    otherUser,
			reason:  "other uid: the socket at ADDRESS is uid 0's, and proxyd, uid 65534, can add none to it; repeat the line ListenStream=",
			insists: linesMissing(1),
		},
		"unix": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "unix", path, 1, false) },
			address: "unix:" + path,
			reason:  "unix listener",
			insists: `backend.path: "direct" needs TCP listeners, and "http" is a unix socket; write path = "auto"`,
		},
		"more than there are tags for": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "tcp4", address, 33, true) },
			reason:  "steer listener \"http\" at ADDRESS: not a group of SO_REUSEPORT sockets of our own: 33 members, it takes 3 to 32",
			insists: `backend.path: "direct" cannot be: steer listener "http" at ADDRESS: not a group of SO_REUSEPORT sockets of our own: 33 members, it takes 3 to 32`,
		},
		"one of the group is not passed": {
			pass:    func(t *testing.T, address string) []*os.File { return listening(t, "tcp4", address, 5, true)[:4] },
			reason:  `steer listener "http" at ADDRESS: not a group of SO_REUSEPORT sockets of our own: 1 sockets of somebody else listen there as well`,
			insists: `backend.path: "direct" cannot be: steer listener "http" at ADDRESS: not a group of SO_REUSEPORT sockets of our own: 1 sockets of somebody else`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, choice := range []string{pathAuto, pathDirect} {
				d := newDaemon(t, setup{command: self(t, "serve"), path: choice, address: c.address})
				if c.wrap != nil {
					d.wrap = c.wrap(t)
				}
				if c.address != "" {
					_ = os.Remove(path)
				}
				d.pass(c.pass(t, d.address)...)
				says := func(text string) string { return strings.ReplaceAll(text, "ADDRESS", d.address) }
				if choice == pathDirect {
					d.mustRefuse(says(c.insists))
					continue
				}
				d.startServing()
				l := d.status().Listeners
				if len(l) != 1 || l[0].Path != pathRelay || !strings.HasPrefix(l[0].Reason, says(c.reason)) {
					t.Fatalf("listeners: %+v", l)
				}
				if out := d.mustCtl("status"); !strings.Contains(out, "relay ("+says(c.reason)) {
					t.Errorf("status shows\n%s", out)
				}
				if log := d.log.String(); !strings.Contains(log, "served by the relay: generation=1") {
					t.Errorf("the log does not say so:\n%s", log)
				}
				if name == "one of the group is not passed" {
					continue // some of its clients are the other's
				}
				d.mustAnswer("v1")
				d.mustCtl("promote", "v2")
				d.mustAnswer("v2")
				d.stop()
			}
		})
	}
}

// mustRefuse wants proxyd to end at once, with 1, and to say why.
func (d *daemonUnderTest) mustRefuse(want string) {
	d.t.Helper()
	d.launch()
	d.awaitEnd()
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	if code != 1 || !strings.Contains(d.log.String(), want) {
		d.t.Errorf("exit %d, and it says %s, not %q", code, d.log, want)
	}
}

// Two addresses of one listener need equally many lines. What is missing is said
// with the line and how often.
func TestUnequalLinesOfASocketUnit(t *testing.T) {
	for _, c := range []struct {
		first, second int
		missing       int // at which
		times         string
	}{
		{4, 3, 1, "once more"},
		{3, 5, 0, "2 more times"},
		{1, 12, 0, "11 more times"},
		{12, 1, 1, "11 more times"},
		{2, 2, 0, fmt.Sprintf("%d more times", defaultLines-2)},
	} {
		d := newDaemon(t, setup{command: self(t, "serve"), path: pathAuto})
		addresses := []string{d.address, freeAddress(t)}
		d.pass(append(listening(t, "tcp4", addresses[0], c.first, true), listening(t, "tcp4", addresses[1], c.second, true)...)...)
		d.mustRefuse("add the line ListenStream=" + addresses[c.missing] + " to it " + c.times + ", under ReusePort=yes")
	}
}

// A proxyd that runs as another user than the one before finds that one's group.
func TestAGroupOfAnotherUser(t *testing.T) {
	t.Run("whole", func(t *testing.T) {
		d := newDaemon(t, setup{command: self(t, "serve")})
		d.wrap = otherUser(t)
		d.startServing()
		d.mustBeDirect()
		pid := d.generation(1).PID
		idle := dialEcho(t, d.address)
		d.kill9()
		d.wrap = nil
		d.startServing()
		d.mustBeDirect()
		if got := d.generation(1).PID; got != pid {
			t.Errorf("generation 1 is process %d, was %d", got, pid)
		}
		d.mustCtl("promote", "v2")
		d.mustBeDirect()
		d.mustAnswer("v2")
		idle.say(t, "hi", "v1 hi")
	})
	// Where the holder has ended as well, what a program that closes descriptors has
	// left of it can neither be had back nor joined; what another user's processes hold cannot be seen.
	for name, c := range map[string]struct {
		mode          string
		first, second func(*testing.T) []string
		says          string
	}{
		"in part":      {"closes", otherUser, needsNone, "other uid: uid 65534 listens there, and proxyd is uid 0"},
		"out of reach": {"serve", needsNone, otherUser, "other uid: uid 0 listens there, and proxyd is uid 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, setup{command: self(t, c.mode)})
			d.wrap = c.first(t)
			d.startServing()
			d.mustBeDirect()
			pid := d.generation(1).PID
			d.kill9Holder()
			d.wrap = c.second(t)
			d.launch()
			d.awaitEnd()
			if code := d.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(d.log.String(), c.says) {
				t.Errorf("exit %d, and it says %s", code, d.log)
			}
			d.mustAnswer("v1") // by whom the kernel gives it to
			d.wrap = c.first(t)
			d.startServing()
			d.mustAnswer("v1")
			if got := d.generation(1).PID; name == "out of reach" && got != pid {
				t.Errorf("generation 1 is process %d, was %d", got, pid)
			}
		})
	}
}

func needsNone(*testing.T) []string { return nil }
