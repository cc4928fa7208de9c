package proxy

import (
	"net"
	"testing"
)

// Who asks for the end of a drain again and again, as switches go to and fro over a
// connection that lasts, leaves one waiter behind.
func TestOneWaitsForADrain(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	p, d := newDirect(t, addr, fds)
	mustLend(t, d, 1)
	mustLend(t, d, 2)
	mustSteer(t, d, 1)
	client := dialTo(t, addr)
	relayed, err := p.NewRoute(3, map[string]net.Addr{"web": addr})
	if err != nil {
		t.Fatal(err)
	}
	relayed.counts[0].inFlight.Add(1)
	first, route := d.Drained(1, nil), relayed.Drained()
	for range 20 {
		mustSteer(t, d, 2)
		if d.Drained(1, nil) != first || relayed.Drained() != route {
			t.Fatal("another waiter")
		}
		mustSteer(t, d, 1)
	}
	mustSteer(t, d, 2)
	landed(t, fds)
	client.Close()
	<-first
	relayed.counts[0].inFlight.Add(-1)
	relayed.check()
	<-route
	if again := d.Drained(1, nil); again == first {
		t.Error("the channel of a drain that is over is given again")
	} else {
		<-again
	}
}
