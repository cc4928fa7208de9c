package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
)

// member is what the Supervisor knows of a generation beside the Machine.
type member struct {
	state         State
	since         time.Time
	drainDeadline time.Time
	probationEnds time.Time
	killAt        time.Time // by the timer that was set last
	plan          json.RawMessage
	identity      json.RawMessage
	run           Run
	proof         *proof
	endProof      context.CancelFunc
	endWatch      chan struct{}      // ends who waits for it to have drained
	endStart      context.CancelFunc // while it starts
	lastRun       Run                // the run of the last start, ended or not
	lastLines     []string           // of a start that came to nothing
	notice        string
}

func (s *Supervisor) member(id uint64) *member {
	m := s.gens[id]
	if m == nil {
		m = &member{}
		s.gens[id] = m
	}
	return m
}

// forget drops what the Machine has pruned.
func (s *Supervisor) forget() {
	for id := range s.gens {
		if s.machine.gens[id] == nil {
			delete(s.gens, id)
			s.cfg.Router.Close(id)
		}
	}
	for key := range s.timers {
		if key.gen != 0 && s.machine.gens[key.gen] == nil {
			s.cancelTimer(key)
		}
	}
}

func (s *Supervisor) logFor(id uint64) hclog.Logger {
	log := s.log.With("generation", id)
	if g := s.machine.gens[id]; g != nil {
		log = log.With("release", g.release)
	}
	return log
}

// noticed keeps the generation's own status line and lets its proof know.
func (m *member) noticed(n Notice) {
	switch {
	case n.Status != "":
		m.notice = n.Status
	case n.Stopping:
		m.notice = "it says that it is stopping"
	}
	if m.proof != nil {
		m.proof.tell(n)
	}
}

// reasonWith adds what the readiness check last saw.
func (m *member) reasonWith(reason string) string {
	if m.proof == nil {
		return reason
	}
	if last := m.proof.lastFailure(); last != "" {
		return fmt.Sprintf("%s; its %s check last said: %s", reason, m.proof.readiness.Check, last)
	}
	return reason
}
