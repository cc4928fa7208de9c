package main

import (
	"strings"
	"syscall"
	"testing"
)

// Programs that shut their listening socket down at TERM, to wake a thread out of
// accept(2): proxyd holds the same socket, and nobody else must notice. Not while one
// of them is retired, not when the current one is told to end by somebody else, and
// not when proxyd is started again.
func TestAProgramThatShutsItsSocketDown(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "shuts"), toml: "[promote]\nprobation = \"0s\"\n"})
	d.startServing()
	onPath := d.status().Listeners[0].Path
	all := func(release string) {
		t.Helper()
		for range 50 {
			d.mustAnswer(release)
		}
	}
	d.mustCtl("stage", "v2")
	d.mustCtl("promote", "v3")
	all("v3")
	l := startTraffic(t, d.address)
	d.mustCtl("retire")
	l.runFor(50)
	l.stop()
	l.check()
	all("v3")
	pid := d.generation(3).PID
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.await("another run of generation 3", func() bool { return d.generation(3).PID > 0 && d.generation(3).PID != pid })
	d.awaitGeneration(3, "current")
	d.awaitState("serving")
	all("v3")
	staged := d.generation(2).PID
	d.kill9()
	if err := syscall.Kill(staged, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.awaitState("serving")
	all("v3")
	d.mustCtl("promote", "v4")
	all("v4")
	if now := d.status().Listeners[0].Path; now != onPath {
		t.Errorf("it was on the path %s and is on %s", onPath, now)
	}
	for _, bad := range []string{"unusable", "not used any more", "is lost", "go astray"} {
		if strings.Contains(d.log.String(), bad) {
			t.Errorf("the log says %q:\n%s", bad, d.log)
		}
	}
}
