package main

import (
	"strings"
	"testing"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func TestRevertIsInstantWhileThePreviousRuns(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	l := startTraffic(t, d.address)
	idle := dialEcho(t, d.address) // keeps generation 1 draining
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	if r := d.result("revert"); !r.Switched || r.Started || r.Generation != 1 || r.Previous != 2 || !saysWhenSwitched(r) {
		t.Fatalf("revert while draining: %+v", r)
	}
	d.mustAnswer("v1")
	d.mustKeepToThePath()
	idle.say(t, "hi", "v1 hi")
	d.mustCtl("promote", "v3")
	idle.conn.Close()
	// The load's kept connections are on generation 1, too; they end with it.
	l.stop()
	d.awaitGeneration(1, "standby")
	if r := d.result("revert"); !r.Switched || r.Started || r.Generation != 1 || !saysWhenSwitched(r) {
		t.Fatalf("revert from standby: %+v", r)
	}
	d.mustAnswer("v1")
	d.mustKeepToThePath()
	l.check()
}

// saysWhenSwitched: the time to the switch is told, and is within the time to the
// answer, which is in whole milliseconds. How long it is, cmd/bench measures.
func saysWhenSwitched(r control.Result) bool {
	return r.SwitchMicros > 0 && r.SwitchMicros < (r.TookMS+1)*1000
}

func TestRevertOfAStoppedGenerationStartsIt(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	d.mustCtl("retire")
	d.awaitGeneration(1, "stopped")
	if r := d.result("revert"); !r.Switched || !r.Started || r.Generation != 1 || !saysWhenSwitched(r) {
		t.Fatalf("revert of a stopped generation: %+v", r)
	}
	d.mustAnswer("v1")
	d.mustKeepToThePath()
	out := d.mustCtl("revert")
	if !strings.Contains(out, "v2") {
		t.Fatalf("the second revert says %q", out)
	}
	d.mustAnswer("v2")
	d.mustKeepToThePath()
}

func TestIfCurrentIsACompareAndSwap(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	if _, stderr, code := d.ctl("promote", "v2", "--if-current", "7"); code != 6 || !strings.Contains(stderr, "1") {
		t.Fatalf("promote --if-current 7: exit %d, %s", code, stderr)
	}
	d.mustAnswer("v1")
	d.mustCtl("promote", "v2", "--if-current", "1")
	d.mustAnswer("v2")
}
