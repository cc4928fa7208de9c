package systemd

import (
	"context"
	"errors"
)

// bus is all that this package asks of systemd's manager, as
// org.freedesktop.systemd1(5) describes it. A bus is one connection: once it
// was lost it stays so, and every call gives errLost.
type bus interface {
	// start and stop queue a job. The channel gets its result, once, unless the
	// connection is lost before: "done", or why not.
	start(ctx context.Context, unit string) (<-chan string, error)
	stop(ctx context.Context, unit string) (<-chan string, error)
	// kill sends a signal to "main" or "all" processes of the unit.
	kill(ctx context.Context, unit, who string, signal int32) error
	resetFailed(ctx context.Context, unit string) error
	// properties gives all properties of all of the unit's interfaces.
	properties(ctx context.Context, unit string) (map[string]any, error)
	// processes gives those of the unit's control group, with all below it.
	processes(ctx context.Context, unit string) ([]int, error)
	// list gives the names of the loaded units that match pattern.
	list(ctx context.Context, pattern string) ([]string, error)
	// systemState is the manager's own state: "running", "stopping" and others.
	systemState(ctx context.Context) (string, error)
	// changed gives names of units that are not as they were; "" is any unit,
	// for messages were lost. It is closed when the connection is lost.
	changed() <-chan string
	close()
}

var (
	// errLost is a call whose connection is no more: it may have been done.
	errLost = errors.New("the connection to systemd was lost")
	// errAway is a call that systemd did not take for now, as while it executes
	// itself anew.
	errAway = errors.New("systemd is not there for the moment")
)

// state is what matters of a unit's properties.
type state struct {
	load, loadError string
	kind            string // Type=
	killMode        string // KillMode=
	active, sub     string // ActiveState, SubState
	invocation      string // 32 hex digits, "" when it does not run and is not remembered
	result          string
	skipped         bool   // its conditions did not hold at the last start
	job             bool   // a job is queued or runs
	mainPID         int    // 0: none
	begun           uint64 // when the unit last left inactive, CLOCK_REALTIME, in µs
	mainStart       uint64 // when the last main process started, CLOCK_MONOTONIC, in µs
	// How that ended, where exited.
	exited       bool
	code, status int // CLD_* of waitid(2), and status or signal
	statusText   string
	post         command // of ExecStartPost=, the one that failed
}

// command is one run of a command of the unit beside its main process.
type command struct {
	path         string
	code, status int // as of the main process; code 0: none
}

// running tells whether the unit runs by systemd's word. There may be processes of
// one that does not: see remnant.
func (s state) running() bool {
	return s.active != "inactive" && s.active != "failed" && s.active != ""
}

// remains tells whether the unit is only called active: RemainAfterExit= keeps it
// so though its process has ended (systemd.service(5)).
func (s state) remains() bool { return s.active == "active" && s.sub == "exited" }

// stateOf reads properties. What is missing, or of another type than it should
// be, is zero.
func stateOf(p map[string]any) state {
	text := func(name string) string { s, _ := p[name].(string); return s }
	number := func(name string) uint64 {
		switch n := p[name].(type) {
		case uint32:
			return uint64(n)
		case int32:
			return uint64(max(n, 0))
		case uint64:
			return n
		}
		return 0
	}
	s := state{
		load: text("LoadState"), kind: text("Type"), killMode: text("KillMode"), active: text("ActiveState"), sub: text("SubState"),
		result: text("Result"), statusText: text("StatusText"),
		mainPID: int(number("MainPID")),
		code:    int(number("ExecMainCode")), status: int(number("ExecMainStatus")),
	}
	held, _ := p["ConditionResult"].(bool)
	s.skipped = !held && number("ConditionTimestampMonotonic") != 0
	if id, ok := p["InvocationID"].([]byte); ok && len(id) == 16 {
		s.invocation = hexOf(id)
	}
	if e, ok := p["LoadError"].([]any); ok && len(e) == 2 {
		s.loadError, _ = e[1].(string)
	}
	if j, ok := p["Job"].([]any); ok && len(j) == 2 {
		id, _ := j[0].(uint32)
		s.job = id != 0
	}
	s.begun = number("InactiveExitTimestamp")
	s.post = failedCommand(p["ExecStartPost"], number("InactiveExitTimestampMonotonic"), number("ExecMainExitTimestampMonotonic"))
	s.mainStart = number("ExecMainStartTimestampMonotonic")
	s.exited = number("ExecMainExitTimestampMonotonic") >= s.mainStart && s.code != 0
	return s
}

func hexOf(b []byte) string {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, hexDigits[c>>4], hexDigits[c&15])
	}
	return string(out)
}
