package main

import (
	"fmt"
	"strings"
	"testing"
)

// A program that opens a socket of its own at the listener's address, beside the one
// that it was handed, is named when it did. It is served as before, also by the next
// proxyd: it is taken over with the connections that it has, on the direct path, and
// drains.
func TestAProgramThatJoinsTheListenersGroup(t *testing.T) {
	for name, members := range map[string]int{"sockets of systemd's": 4, "sockets of proxyd's": 0} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, setup{command: self(t, "joins"), path: pathDirect, toml: "[promote]\nprobation = \"0s\"\n"})
			if members > 0 {
				d.passMembers(members)
			}
			d.startServing()
			pid := d.generation(1).PID
			d.await("it is said who joined", func() bool {
				log := d.log.String()
				return strings.Contains(log, "somebody opened a socket of their own") && strings.Contains(log, fmt.Sprintf("process %d ", pid))
			})
			idle := dialEcho(t, d.address)
			d.kill9()
			d.start()
			d.awaitState("serving")
			if g := d.generation(1); g.PID != pid || g.Path != pathDirect {
				t.Fatalf("it was process %d, and is %+v", pid, g)
			}
			d.mustBeDirect()
			d.mustAnswer("v1")
			d.mustCtl("promote", "v2")
			d.mustBeDirect()
			d.mustAnswer("v2")
			idle.say(t, "hi", "v1 hi")
			if g := d.generation(1); g.State != "draining" || g.InFlight != 1 {
				t.Errorf("the one before: %+v", g)
			}
			idle.conn.Close()
			d.awaitGeneration(1, "standby")
			d.mustCtl("revert")
			d.mustAnswer("v1")
			d.mustBeDirect()
		})
	}
}
