package backend

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Switches to and fro over connections that last leave one watcher for each
// generation behind, and not one for each switch.
func TestFlipsOverALongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t).start()
		defer r.stop()
		r.router.connections(1, 1)
		r.promote("v2")
		r.router.connections(2, 1)
		r.revert()
		r.revert()
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 50 {
			r.revert()
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+5 {
			t.Errorf("%d goroutines before, %d after", before, now)
		}
		r.wantRouted(2)
		r.router.connections(1, 0)
		synctest.Wait()
		r.wantState(1, Standby)
		r.router.connections(2, 0)
	})
}
