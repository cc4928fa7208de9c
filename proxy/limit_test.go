package proxy

import "testing"

// Before proxyd ends it takes nobody and waits for those whom it has, also for
// one whose backend it has not reached.
func TestEmptyIsReachedAfterAHold(t *testing.T) {
	f := newFront(t, "tcp", Config{Loops: 2})
	r := f.to(t, 1, named(t, "unix", "A").Addr())
	f.Switch(r)
	served := dial(t, f.ln)
	if got := want(served, []byte("A")); got != "1 bytes" {
		t.Fatal(got)
	}
	f.Switch(nil)
	f.Hold()
	empty := f.Empty()
	select {
	case <-empty:
		t.Fatal("empty, with a client")
	default:
	}
	reset(t, served)
	<-empty
	<-f.Empty() // for whoever asks later
}
