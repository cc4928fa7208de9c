package control

import (
	"fmt"
	"time"
)

// Schema is the number of the JSON documents' form. A field may be added under
// the same number; taking one away or changing its meaning raises it.
const Schema = 1

// Status is what the service looks like at one moment.
type Status struct {
	Schema      int          `json:"schema"`
	Service     string       `json:"service"`
	State       string       `json:"state"`    // starting, serving, held, waiting
	Current     uint64       `json:"current"`  // 0: none yet
	Previous    uint64       `json:"previous"` // 0: none
	HeldUntil   *time.Time   `json:"held_until,omitempty"`
	Listeners   []Listener   `json:"listeners"`
	Generations []Generation `json:"generations"`
}

// Generation finds the generation with a number; nil where there is none.
func (s *Status) Generation(id uint64) *Generation {
	for i := range s.Generations {
		if s.Generations[i].ID == id {
			return &s.Generations[i]
		}
	}
	return nil
}

// Listener is one client-facing listening socket.
type Listener struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Path    string `json:"path"`                  // of the current generation: relay, direct
	Reason  string `json:"path_reason,omitempty"` // why it is the relay
	Source  string `json:"source"`                // systemd, proxyd
}

// Generation is one generation in a Status. Byte and connection counts are
// since proxyd was started.
type Generation struct {
	ID               uint64     `json:"id"`
	Release          string     `json:"release"`
	State            string     `json:"state"`
	Path             string     `json:"path,omitempty"` // relay, direct; direct: only in-flight connections are counted
	InFlight         uint64     `json:"in_flight"`
	Accepted         uint64     `json:"accepted"`
	ConnectFailures  uint64     `json:"connect_failures"`
	BytesFromClients uint64     `json:"bytes_from_clients"`
	BytesToClients   uint64     `json:"bytes_to_clients"`
	PID              int        `json:"pid"`               // 0: no process
	Unit             string     `json:"unit"`              // empty under the exec driver
	Since            time.Time  `json:"since"`             // in this state since
	DrainDeadline    *time.Time `json:"drain_deadline"`    // null: not draining, or without a limit
	KillAt           *time.Time `json:"kill_at,omitempty"` // while it is stopping: when it is killed, unless it ends
	Reason           string     `json:"reason"`            // why it is in this state
	Notice           string     `json:"notice,omitempty"`  // what it last said of itself (STATUS=)
}

// HistoryEntry is one transition: what happened, when, to which generation, who
// asked (empty: proxyd itself) and why.
type HistoryEntry struct {
	Seq        uint64    `json:"seq"`
	Time       time.Time `json:"time"`
	Event      string    `json:"event"`
	Generation uint64    `json:"generation,omitempty"`
	Release    string    `json:"release,omitempty"`
	From       uint64    `json:"from,omitempty"`
	By         string    `json:"by,omitempty"`
	Reason     string    `json:"reason,omitempty"`
}

// In every request, By is who asks, by the peer's credentials; the server sets
// it and a client cannot.

// StageRequest asks for a new generation of Release, proven ready. An empty
// Release means the current one.
type StageRequest struct {
	Release string `json:"release,omitempty"`
	By      string `json:"-"`
}

// PromoteRequest asks to make Generation, or else one of Release, or else a new
// one of the current release, the current generation. IfCurrent, where not zero,
// must be the current generation both now and at the switch.
type PromoteRequest struct {
	Release    string `json:"release,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	IfCurrent  uint64 `json:"if_current,omitempty"`
	By         string `json:"-"`
}

// RevertRequest asks to go back to generation To, or with 0 to the previous one.
type RevertRequest struct {
	To uint64 `json:"to,omitempty"`
	By string `json:"-"`
}

// RetireRequest asks to end the standby.
type RetireRequest struct {
	By string `json:"-"`
}

// The ways to end a generation, in StopRequest.Mode.
const (
	StopGraceful = ""     // when its last connection is done
	StopNow      = "now"  // cut what is in flight, then the stop signal
	StopKill     = "kill" // KILL
)

// StopRequest asks to end one generation.
type StopRequest struct {
	Generation uint64 `json:"generation"`
	Mode       string `json:"mode,omitempty"`
	By         string `json:"-"`
}

// HoldRequest asks to keep new connections waiting, for Max at most where that
// is not zero.
type HoldRequest struct {
	Max Duration `json:"max,omitempty"`
	By  string   `json:"-"`
}

// ResumeRequest asks to end a hold.
type ResumeRequest struct {
	By string `json:"-"`
}

// ReloadRequest asks for the config to be read again.
type ReloadRequest struct {
	By string `json:"-"`
}

// Result answers every request that changes something. TookMS is the time from
// the request to the answer in milliseconds; the server sets it where a Service
// leaves it 0.
type Result struct {
	Generation uint64 `json:"generation,omitempty"`
	Release    string `json:"release,omitempty"`
	Previous   uint64 `json:"previous,omitempty"`
	State      string `json:"state,omitempty"` // of the generation, or of the service after hold and resume
	Switched   bool   `json:"switched"`        // new connections go to Generation since this request
	Started    bool   `json:"started"`         // it had to be started first
	TookMS     int64  `json:"took_ms"`
	// SwitchMicros is the time from the request to the switch in microseconds,
	// where it Switched; the answer waits for the disk as well.
	SwitchMicros int64      `json:"switch_us,omitempty"`
	Draining     []Draining `json:"draining,omitempty"`
	Message      string     `json:"message,omitempty"`
}

// Draining is a generation that gets no new connections and still has some.
type Draining struct {
	ID            uint64     `json:"id"`
	Release       string     `json:"release,omitempty"`
	InFlight      uint64     `json:"in_flight"`
	DrainDeadline *time.Time `json:"drain_deadline"`
}

// Duration is a time.Duration that is written as in "1m30s".
type Duration time.Duration

// D gives it as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.D().String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration like \"30s\" or \"5m\"", text)
	}
	*d = Duration(v)
	return nil
}
