package main

import (
	"testing"
)

// faultPoints are the steps of a promote, in their order: see the calls of
// Config.Fault in package backend. Killed at or after the last three, the new
// generation is current; before, the old one is.
var faultPoints = []struct {
	name     string
	switched bool
}{
	{"start", false},
	{"identified", false},
	{"started", false},
	{"prove", false},
	{"switch", false},
	{"prepared", false},
	{"routed", false},
	{"committed", true},
	{"answer", true},
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
			_, _, code := d.ctl("promote", "v2")
			if code == 0 {
				t.Fatal("the promote was done: the fault point was not met")
			}
			<-d.ended
			d.program, d.env = "proxyd", nil
			d.start()
			d.awaitState("serving")
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
			if f.switched {
				running = 2 // the previous one stands by
			}
			d.await("no process to be left over", func() bool { return len(d.processes()) == running })
			d.mustCtl("promote", "v3")
			d.mustAnswer("v3")
		})
	}
}
