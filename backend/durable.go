package backend

import (
	"encoding/json"
	"time"
)

// Durable is the part of the state that outlives proxyd.
type Durable struct {
	Service     string              `json:"service"`
	Next        uint64              `json:"next_generation"`
	Current     uint64              `json:"current"`
	Previous    uint64              `json:"previous"`
	Held        bool                `json:"held,omitempty"`
	HeldUntil   time.Time           `json:"held_until,omitzero"`
	Generations []DurableGeneration `json:"generations"`
}

// DurableGeneration is one generation in the durable state. Plan and Identity
// belong to the Driver, which wrote them. What older proxyds did not write is
// zero, and what newer ones write beside it is passed over, so a key that may be
// missed needs no other schema.
type DurableGeneration struct {
	ID            uint64          `json:"id"`
	Release       string          `json:"release"`
	State         State           `json:"state"`
	Origin        string          `json:"origin"`
	Reason        string          `json:"reason,omitempty"`
	Since         time.Time       `json:"since,omitzero"`
	DrainDeadline time.Time       `json:"drain_deadline,omitzero"`
	Plan          json.RawMessage `json:"plan,omitempty"`
	Identity      json.RawMessage `json:"identity,omitempty"`

	Probation       bool      `json:"probation,omitempty"` // of the current one, until ProbationEnds
	ProbationEnds   time.Time `json:"probation_ends,omitzero"`
	StopWhenDrained bool      `json:"stop_when_drained,omitempty"` // of a draining one: it is not to stand by
	Final           State     `json:"final,omitempty"`             // of a draining one that was not superseded: what it ends in
}

// durable gives the Machine's own part of the durable state.
func (m *Machine) durable() Durable {
	d := Durable{Next: m.next, Current: m.current, Previous: m.previous, Held: m.held}
	for _, g := range m.sorted() {
		r := DurableGeneration{
			ID: g.id, Release: g.release, State: g.state, Origin: string(g.origin), Reason: g.reason,
			Probation:       g.state == Current && (g.probation || m.pending != nil && m.pending.gen == g && m.pending.probation),
			StopWhenDrained: g.state == Draining && g.stopWhenDrained,
		}
		if g.state == Draining {
			r.Final = g.final
		}
		d.Generations = append(d.Generations, r)
	}
	return d
}
