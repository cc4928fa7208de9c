package backend

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the machine does into testdata/*.txt")

// TestMachineScripts plays each file of testdata, one behaviour a file. A line
// that begins with ">" is an event (or sets up the machine); the lines after it
// are the actions that it gives and, after "=", the state that it leads to.
func TestMachineScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s: %s", path, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	event := ""
	for i := range max(len(w), len(g)) {
		at := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(end)"
		}
		if strings.HasPrefix(at(w), ">") {
			event = at(w)
		}
		if at(w) != at(g) {
			return "after " + event + "\n want: " + at(w) + "\n got:  " + at(g)
		}
	}
	return "no difference"
}

// play gives the script with the output that the machine really gives.
func play(t *testing.T, script string) string {
	s := &scripted{t: t, serials: map[timerKey]uint64{}, drains: map[uint64]uint64{}, policy: Policy{
		ReadyDeadline: 30 * time.Second, Probation: 30 * time.Second,
		DrainDeadline: 10 * time.Minute, KeepPrevious: 10 * time.Minute,
		StopTimeout: 30 * time.Second, ShutdownDrain: time.Minute, MaxDraining: 8,
	}}
	var out strings.Builder
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, ">"):
			out.WriteString(line)
			s.do(&out, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
			out.WriteString(line)
		}
	}
	return out.String()
}

// scripted is a machine with what a script needs not to say: the serial numbers
// of timers and drains.
type scripted struct {
	t       *testing.T
	policy  Policy
	durable Durable
	machine *Machine
	serials map[timerKey]uint64
	drains  map[uint64]uint64
}

func (s *scripted) do(out *strings.Builder, line string) {
	if s.setUp(line) {
		return
	}
	if s.machine == nil {
		s.machine = NewMachine(s.policy, s.durable)
	}
	for _, a := range s.machine.Step(s.event(line)) {
		switch a := a.(type) {
		case SetTimer:
			s.serials[timerKey{a.Gen, a.Kind}] = a.Serial
		case WatchDrain:
			s.drains[a.Gen] = a.Serial
		}
		out.WriteString("  " + describe(a) + "\n")
	}
	out.WriteString("  = " + describeState(s.machine) + "\n")
}
