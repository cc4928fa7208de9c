package main

import (
	"strings"
	"testing"
)

// faultPoints are the steps of a promote, in their order: see the calls of
// Config.Fault in package backend. Killed at one of the last two, the new
// generation is current; before, the old one is. From the last three on the kernel
// is steered to the new one.
var faultPoints = []struct {
	name             string
	routed, switched bool
}{
	{"start", false, false},
	{"identified", false, false},
	{"started", false, false},
	{"prove", false, false},
	{"switch", false, false},
	{"prepared", false, false},
	{"routed", true, false},
	{"committed", true, true},
	{"answer", true, true},
}

// proxyd is killed with KILL at every step of a promote and started again: one
// of the two generations is current and answers, and nothing is left over or
// doubled.
func TestKilledAtEveryStepOfAPromote(t *testing.T) {
	for _, f := range faultPoints {
		t.Run(f.name, func(t *testing.T) {
			d := newDaemon(t, setup{command: self(t, "serve")})
			d.startServing()
			pid := d.generation(1).PID
			d.kill9()
			d.program, d.env = "proxyd-faults", []string{"PROXYD_FAULT=" + f.name}
			d.start()
			d.awaitState("serving")
			if got := d.generation(1).PID; got != pid {
				t.Fatalf("generation 1 was not adopted: process %d before, %d after", pid, got)
			}
			d.mustKeepToThePath()
			_, _, code := d.ctl("promote", "v2")
			if code == 0 {
				t.Fatal("the promote was done: the fault point was not met")
			}
			<-d.ended
			var idle *echo
			reached := "v1"
			if f.routed {
				reached = "v2"
			}
			// Over the relay nobody holds the listener that proxyd made itself.
			direct := onThePath() == pathDirect
			if direct {
				idle = dialEcho(t, d.address)
				idle.say(t, "while it is away", reached+" while it is away")
			}
			d.program, d.env = "proxyd", nil
			d.start()
			d.awaitState("serving")
			if direct && f.routed && !f.switched && !strings.Contains(d.log.String(), "new connections went elsewhere than was left, and are steered anew") {
				t.Errorf("it does not say that it steers anew:\n%s", d.log)
			}
			want, current := "v1", uint64(1)
			if f.switched {
				want, current = "v2", 2
			}
			if st := d.status(); st.Current != current {
				t.Fatalf("current is %d, want %d", st.Current, current)
			}
			d.mustAnswer(want)
			if got := d.generation(1).PID; !f.switched && got != pid {
				t.Fatalf("generation 1 is process %d, was %d", got, pid)
			}
			running := 1
			switch {
			case f.switched:
				running = 2 // the previous one stands by
			case f.routed && direct:
				d.awaitGeneration(2, "draining")
			default:
				d.await("the cut-short generation to end", func() bool { return len(d.processes()) == 1 })
			}
			d.mustKeepToThePath()
			if direct {
				idle.say(t, "still there", reached+" still there")
				idle.conn.Close()
			}
			if f.routed && !f.switched {
				d.awaitGeneration(2, "failed")
			}
			d.await("no process to be left over", func() bool { return len(d.processes()) == running })
			d.mustCtl("promote", "v3")
			d.mustAnswer("v3")
			d.mustKeepToThePath()
		})
	}
}

// A revert is on disk after the route was switched, so that it works with a full
// disk. Killed in between, proxyd finds a standby that has clients: asked to end,
// it ends after them.
func TestKilledWithinARevert(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	d.kill9()
	d.program, d.env = "proxyd-faults", []string{"PROXYD_FAULT=unsaved"}
	d.start()
	d.awaitState("serving")
	if _, _, code := d.ctl("revert"); code == 0 {
		t.Fatal("the revert was done: the fault point was not met")
	}
	<-d.ended
	// Over the relay nobody holds the listener that proxyd made itself.
	var idle *echo
	if onThePath() == pathDirect {
		idle = dialEcho(t, d.address)
		idle.say(t, "while it is away", "v1 while it is away")
	}
	d.program, d.env = "proxyd", nil
	d.start()
	d.awaitState("serving")
	d.mustAnswer("v2")
	if g := d.generation(1); g.State != "standby" {
		t.Fatalf("generation 1 is %s", g.State)
	}
	d.mustKeepToThePath()
	d.mustCtl("retire")
	if idle != nil {
		d.awaitGeneration(1, "draining")
		idle.say(t, "still there", "v1 still there")
		idle.conn.Close()
	}
	d.awaitGeneration(1, "stopped")
	d.mustAnswer("v2")
}
