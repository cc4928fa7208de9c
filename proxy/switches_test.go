package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// 1,000 switches back to back under connection-per-request load: nothing is
// refused, reset or unanswered, and each client is answered by a generation that
// was current at its connect or later. At the end both have drained.
func TestAThousandSwitchesUnderLoad(t *testing.T) {
	const switches = 1000
	addr, fds := membersAt(t, "127.0.0.1", 4, false)
	_, d := newDirect(t, addr, fds)
	for _, n := range []uint64{1, 2} {
		newGeneration(t, d, n).do("serve", int(n))
	}
	if err := d.Steer(2); err != nil {
		t.Fatal(err)
	}
	var turn atomic.Int64 // rises by one before and after each switch
	turn.Store(2)
	var done atomic.Int64
	var wrong atomic.Pointer[error]
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Add(1)
		go func() { // ends with stop, or what went wrong
			defer clients.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := askOnce(addr, &turn); err != nil {
					wrong.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		}()
	}
	for i := int64(2); i <= switches; i++ {
		before := done.Load()
		turn.Add(1)
		if err := d.Steer(uint64(i%2) + 1); err != nil {
			t.Fatal(err)
		}
		turn.Add(1)
		eventually(t, "the load to go on", func() bool { return done.Load() > before+8 || wrong.Load() != nil })
	}
	close(stop)
	clients.Wait()
	if err := wrong.Load(); err != nil {
		t.Fatal(*err)
	}
	t.Logf("%d connections over %d switches", done.Load(), switches)
	if err := d.Steer(0); err != nil {
		t.Fatal(err)
	}
	<-d.Drained(1, nil)
	<-d.Drained(2, nil)
}

// askOnce asks over a connection of its own, and compares who answers with who
// was current meanwhile.
func askOnce(addr *net.TCPAddr, turn *atomic.Int64) error {
	before := turn.Load()
	c, err := net.DialTCP("tcp", nil, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 1 {
		return fmt.Errorf("answered with %q, %w", b, err)
	}
	// Turns 2k and, while the next switch is under way, 2k+1 belong to k.
	if after := turn.Load(); (after+1)/2 == before/2 && int64(b[0]) != before/2%2+1 {
		return fmt.Errorf("answered by generation %d at turns %d to %d", b[0], before, after)
	}
	return nil
}
