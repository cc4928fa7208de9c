package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A generation that drains is not stopped while a connection waits in its queue, or
// is half-open, or is established: each alone keeps it. Another one drains after it
// and has nothing: once that is stopped, whoever is kept is kept for its connection. Only
// of a half-open one nobody can tell yet whose it will be, so it keeps both.
func TestWhatKeepsADrainingGeneration(t *testing.T) {
	gate := filepath.Join(shortTempDir(t), "open")
	for name, c := range map[string]struct {
		mode  string // of generation 1
		other string // state of a generation that drains meanwhile and has nothing
		begin func(t *testing.T, d *daemonUnderTest) (finish func(t *testing.T))
	}{
		"in its queue": {"slow " + gate, "stopped", func(t *testing.T, d *daemonUnderTest) func(*testing.T) {
			remove(t, gate)
			first := d.burst(1)[0] // the generation is in accept, which one client ends
			if _, err := io.ReadAll(first); err != nil {
				t.Fatal(err)
			}
			waiting := d.burst(1)[0]
			return func(t *testing.T) {
				touch(t, gate)
				waiting.mustBeAnswered(t, "v1 1")
			}
		}},
		"half-open": {"defer", "draining", func(t *testing.T, d *daemonUnderTest) func(*testing.T) {
			silent := d.connect() // the handshake ends with its first byte
			return func(t *testing.T) {
				silent.ask()
				silent.mustBeAnswered(t, "v1 1")
			}
		}},
		"established": {"serve", "stopped", func(t *testing.T, d *daemonUnderTest) func(*testing.T) {
			idle := dialEcho(t, d.address)
			return func(t *testing.T) {
				idle.say(t, "still there", "v1 still there")
				idle.conn.Close()
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			touch(t, gate)
			d := newDaemon(t, setup{command: scripted(t, c.mode, "serve"), toml: "[promote]\nprobation = \"0s\"\n[drain]\nkeep_previous = \"0s\"\n"})
			d.startServing()
			d.mustAnswer("v1")
			d.await("nothing in flight", func() bool { return d.generation(1).InFlight == 0 })
			finish := c.begin(t, d)
			d.mustCtl("promote", "v2")
			d.mustAnswer("v2")
			d.mustCtl("promote") // another one of v2
			d.mustKeepToThePath()
			d.await("the other one to be "+c.other, func() bool {
				g := d.generation(2)
				return g.State == c.other && (g.State == "stopped" || g.InFlight == 1)
			})
			if g := d.generation(1); g.State != "draining" || g.InFlight != 1 {
				t.Fatalf("generation 1 is %s with %d in flight", g.State, g.InFlight)
			}
			finish(t)
			d.awaitGeneration(1, "stopped")
			d.awaitGeneration(2, "stopped")
			d.mustAnswer("v2")
		})
	}
}

// mustBeAnswered reads an answer to its end.
func (c *asking) mustBeAnswered(t *testing.T, want string) {
	t.Helper()
	if answer, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n"+want) {
		t.Fatalf("answered with %q, %v, not %q", answer, err, want)
	}
}

// At the drain deadline what is left is reset before its process is ended, where
// that is permitted; else it ends with the process.
func TestWhatTheDrainDeadlineEnds(t *testing.T) {
	needRoot(t)
	unpermitted := []string{need(t, "setpriv"), "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"}
	for name, c := range map[string]struct {
		mode      string
		wrap      []string
		processes bool // end first
	}{
		"permitted":     {"stubborn", nil, false},
		"not permitted": {"serve", unpermitted, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, setup{command: scripted(t, c.mode, "serve"), toml: "[drain]\ndeadline = \"1s\"\n[stop]\ntimeout = \"10m\"\n"})
			d.wrap = c.wrap
			d.startServing()
			pid := d.generation(1).PID
			idle := dialEcho(t, d.address)
			d.mustCtl("promote", "v2")
			d.mustKeepToThePath()
			idle.patiently(t)
			if _, err := idle.lines.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || !c.processes && !errors.Is(err, unix.ECONNRESET) {
				t.Fatalf("at the deadline the connection ended with %v", err)
			}
			if !c.processes {
				if g := d.generation(1); g.State != "stopping" || syscall.Kill(pid, 0) != nil {
					t.Fatalf("its process was ended first: %+v", g)
				}
				d.mustCtl("stop", "1", "--kill")
			}
			d.awaitGeneration(1, "stopped")
			if strings.Contains(d.log.String(), "cannot cut") {
				t.Errorf("it complains:\n%s", d.log)
			}
		})
	}
}

// needRoot fails a test that root alone can make where CI asks for every test, and
// skips it elsewhere.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}
