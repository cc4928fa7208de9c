package main

import (
	"strconv"
	"sync"
	"testing"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// perSwitch is how many connections each switch meets, on average and at least.
const perSwitch = 10

// Promotes and reverts back to back, while ten thousand connections a second
// are made: none is refused, reset or unanswered, and each is answered by a
// generation that was current when its handshake began, or later.
func TestSwitchesBackToBackUnderLoad(t *testing.T) {
	switches := 1000
	if testing.Short() {
		switches = 100
	}
	d := newDaemon(t, setup{command: self(t, "lean"), toml: "[promote]\nprobation = \"0s\"\n"})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.mustKeepToThePath()
	log := &switchLog{current: []uint64{2}}
	load := startLean(t, d.address, log)
	client := control.NewClient(d.socket())
	for i := range switches {
		to := uint64(1 + i%2)
		log.about(to)
		var r control.Result
		var err error
		if to == 1 {
			r, err = client.Revert(t.Context(), control.RevertRequest{})
		} else {
			r, err = client.Promote(t.Context(), control.PromoteRequest{Generation: to})
		}
		if err != nil || !r.Switched || r.Started || r.Generation != to {
			t.Errorf("switch %d, to %d: %+v, %v", i, to, r, err)
			break
		}
		log.settle()
		if i%2 == 0 { // else there is hardly a connection that only one may answer
			load.awaitLot(t)
		}
	}
	load.check(t)
	// Which rate is reached says the machine and what else runs on it, so that is no
	// condition. What may go wrong depends on how many connections each switch meets:
	// ten, with one each millisecond and 10,000 a second. The waits above see to that
	// on any machine, as leanAtOnce are made for every second switch at least.
	if load.done < perSwitch*switches {
		t.Fatalf("only %d connections over %d switches", load.done, switches)
	}
	t.Logf("%d switches in %s, %.0f connections a second", switches, load.took, float64(load.done)/load.took.Seconds())
}

// switchLog knows which generation was current when. While a switch is under
// way both may answer.
type switchLog struct {
	mu      sync.Mutex
	current []uint64
	settled int // the first of current that may still answer
}

// about: a switch is about to be asked for; settle: it was answered.
func (s *switchLog) about(to uint64) { s.mu.Lock(); s.current = append(s.current, to); s.mu.Unlock() }
func (s *switchLog) settle()         { s.mu.Lock(); s.settled = len(s.current) - 1; s.mu.Unlock() }

// now gives the place in the log from which on generations may answer what
// begins now.
func (s *switchLog) now() int { s.mu.Lock(); defer s.mu.Unlock(); return s.settled }

func (s *switchLog) since(from int) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uint64(nil), s.current[from:]...)
}

// allows tells whether what began at from may have got this answer: the number
// of a generation.
func (s *switchLog) allows(from int, answer string) bool {
	for _, id := range s.since(from) {
		if strconv.FormatUint(id, 10) == answer {
			return true
		}
	}
	return false
}
