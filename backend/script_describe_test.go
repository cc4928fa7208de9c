package backend

import (
	"fmt"
	"strings"
)

// describe writes an action as a script has it. Serial numbers are left out:
// they would change with every action that is added anywhere.
func describe(a Action) string {
	switch a := a.(type) {
	case Save:
		return "save"
	case Start:
		switch {
		case a.Moves:
			return fmt.Sprintf("start %d, twin of %d", a.Gen, a.TwinOf)
		case a.TwinOf != 0:
			return fmt.Sprintf("start %d, in the place of %d", a.Gen, a.TwinOf)
		}
		return fmt.Sprintf("start %d", a.Gen)
	case CancelStart:
		return fmt.Sprintf("cancel start %d", a.Gen)
	case Prove:
		return fmt.Sprintf("prove %d", a.Gen)
	case StopProving:
		return fmt.Sprintf("stop proving %d", a.Gen)
	case Switch:
		if a.Strict {
			return fmt.Sprintf("switch %d, strict", a.Gen)
		}
		return fmt.Sprintf("switch %d", a.Gen)
	case Seal:
		return "seal"
	case Leave:
		return "leave"
	case Route:
		return fmt.Sprintf("route %d", a.Gen)
	case WatchDrain:
		return fmt.Sprintf("watch drain %d", a.Gen)
	case Cut:
		return fmt.Sprintf("cut %d", a.Gen)
	case Stop:
		return fmt.Sprintf("stop %d", a.Gen)
	case Kill:
		return fmt.Sprintf("kill %d", a.Gen)
	case Release:
		return fmt.Sprintf("release %d", a.Gen)
	case Hold:
		return "hold"
	case Resume:
		return "resume"
	case SetTimer:
		s := fmt.Sprintf("timer %d %s %s", a.Gen, a.Kind, a.Delay.After)
		if a.Delay.Jitter {
			s += " with jitter"
		}
		return s
	case CancelTimer:
		return fmt.Sprintf("no timer %d %s", a.Gen, a.Kind)
	case Record:
		s := fmt.Sprintf("record %d %s", a.Gen, a.What)
		if a.From != 0 {
			s += fmt.Sprintf(" from=%d", a.From)
		}
		if a.By != "" {
			s += " by=" + a.By
		}
		return s + after(": ", a.Reason)
	case Answer:
		return fmt.Sprintf("answer %d ", a.Op) + describeOutcome(a.Outcome)
	case Finish:
		return "finish"
	}
	panic(fmt.Sprintf("unknown action %T", a))
}

func after(mark, s string) string {
	if s == "" {
		return ""
	}
	return mark + s
}

func describeOutcome(o Outcome) string {
	s := fmt.Sprintf("%s gen=%d", o.Verdict, o.Gen)
	if o.Previous != 0 {
		s += fmt.Sprintf(" previous=%d", o.Previous)
	}
	if o.Switched {
		s += " switched"
	}
	if o.Started {
		s += " started"
	}
	return s + after(": ", o.Reason) + after(" | ", o.Hint)
}

func describeState(m *Machine) string {
	var parts []string
	for _, g := range m.sorted() {
		s := fmt.Sprintf("%d %s", g.id, g.state)
		if g.id == m.previous {
			s += "+previous"
		}
		if g.probation {
			s += "+probation"
		}
		if !g.running() && g.state != Stopped && g.state != Failed {
			s += "+down"
		}
		parts = append(parts, s)
	}
	if m.op != nil {
		parts = append(parts, fmt.Sprintf("op %d %s", m.op.op, m.op.verb))
	}
	if m.held {
		parts = append(parts, "held")
	}
	if m.closing {
		parts = append(parts, "closing")
	}
	return strings.Join(parts, ", ")
}
