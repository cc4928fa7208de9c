package backend

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// words are a script's line: a verb, key=value pairs, one bare number, and the
// text after ": ".
type words struct {
	verb string
	gen  uint64
	keys map[string]string
	text string
}

func parse(line string) words {
	line, text, _ := strings.Cut(line, ": ")
	fields := strings.Fields(line)
	w := words{verb: fields[0], keys: map[string]string{}, text: text}
	for _, f := range fields[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			w.keys[k] = v
		} else if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			w.gen = n
		} else {
			w.keys[f] = "true"
		}
	}
	return w
}

func (w words) number(key string) uint64 {
	if w.keys[key] == "" {
		return 0
	}
	n, err := strconv.ParseUint(w.keys[key], 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (w words) duration(key string) time.Duration {
	if w.keys[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(w.keys[key])
	if err != nil {
		panic(err)
	}
	return d
}

// setUp takes the lines before the first event: policy, durable and record.
func (s *scripted) setUp(line string) bool {
	w := parse(line)
	switch w.verb {
	case "policy":
		for key, d := range map[string]*time.Duration{
			"ready": &s.policy.ReadyDeadline, "probation": &s.policy.Probation, "drain": &s.policy.DrainDeadline,
			"keep": &s.policy.KeepPrevious, "stop": &s.policy.StopTimeout, "shutdown": &s.policy.ShutdownDrain,
		} {
			if w.keys[key] != "" {
				*d = w.duration(key)
			}
		}
		if w.keys["max_draining"] != "" {
			s.policy.MaxDraining = int(w.number("max_draining"))
		}
		if w.keys["records"] != "" {
			s.policy.KeepRecords = int(w.number("records"))
		}
	case "durable":
		s.durable.Next, s.durable.Current, s.durable.Previous = w.number("next"), w.number("current"), w.number("previous")
		s.durable.Held = w.keys["held"] != ""
	case "record":
		s.durable.Generations = append(s.durable.Generations, DurableGeneration{
			ID: w.gen, Release: w.keys["release"], State: State(w.keys["state"]), Origin: w.keys["origin"], Reason: w.text,
			Probation: w.keys["probation"] != "", StopWhenDrained: w.keys["stop_when_drained"] != "",
		})
	case "again": // a proxyd that goes on from what this one wrote down
		s.durable = s.machine.durable()
		s.machine = nil
	default:
		return false
	}
	return true
}

func (s *scripted) event(line string) Event {
	w := parse(line)
	op, by := Op(w.number("op")), w.keys["by"]
	switch w.verb {
	case "adopted":
		return Adopted{Gen: w.gen}
	case "stranded":
		return Stranded{Gen: w.gen, Why: w.text, Beside: w.keys["beside"] != ""}
	case "lost":
		return Lost{Gen: w.gen}
	case "booted":
		return Booted{Release: w.keys["release"]}
	case "stage":
		return StageRequested{Op: op, By: by, Release: w.keys["release"]}
	case "promote":
		return PromoteRequested{Op: op, By: by, Gen: w.gen, Release: w.keys["release"], IfCurrent: w.number("if-current")}
	case "revert":
		return RevertRequested{Op: op, By: by, To: w.gen}
	case "retire":
		return RetireRequested{Op: op, By: by}
	case "stop":
		return StopRequested{Op: op, By: by, Gen: w.gen, Mode: StopMode(w.keys["mode"])}
	case "hold":
		return HoldRequested{Op: op, By: by, Limit: Delay{After: w.duration("limit")}}
	case "resume":
		return ResumeRequested{Op: op, By: by}
	case "wish":
		return MoveWished{Gen: w.gen, Why: w.text}
	case "shutdown":
		return ShutdownRequested{}
	case "leave":
		return LeaveRequested{}
	case "started":
		return Started{Gen: w.gen}
	case "start-failed":
		return StartFailed{Gen: w.gen, Reason: w.text}
	case "ready":
		return ProvenReady{Gen: w.gen}
	case "misfit":
		return Misfit{Gen: w.gen, Why: w.text}
	case "exited":
		return Exited{Gen: w.gen, Reason: w.text}
	case "switched":
		return Switched{Gen: w.gen}
	case "switch-failed":
		return SwitchFailed{Gen: w.gen, Reason: w.text}
	case "drained": // the last WatchDrain's, or one before
		return Drained{Gen: w.gen, Serial: s.drains[w.gen] - w.number("before")}
	case "timer": // the one that was set last, or one before
		kind := TimerKind(w.keys["kind"])
		return TimerFired{Gen: w.gen, Kind: kind, Serial: s.serials[timerKey{w.gen, kind}] - w.number("before")}
	}
	panic(fmt.Sprintf("unknown line %q", line))
}
