package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The tests that hold on both paths. They run over the direct one, as proxyd
// chooses it by itself, and here once more over the relay.
var onBothPaths = []string{
	"TestRealNginx/handed_over",
	"TestInFlightConnectionsFinishOnTheOldGeneration",
	"TestDrainDeadlineCutsThenAndNotBefore",
	"TestMaxDrainingCutsTheOldest",
	"TestRevertIsInstantWhileThePreviousRuns",
	"TestRevertOfAStoppedGenerationStartsIt",
	"TestAFailedPromoteChangesNothing",
	"TestAGenerationThatDiesInProbationIsReverted",
	"TestACurrentGenerationThatDiesIsStartedAgainAndClientsWait",
	"TestKilledAtEveryStepOfAPromote",
	"TestALostStateIsRebuiltFromWhatRuns",
	"TestHoldAndResume",
}

func TestOverTheRelay(t *testing.T) {
	if os.Getenv(pathVar) != "" {
		return // this is that run
	}
	tops := map[string]bool{}
	for _, name := range onBothPaths {
		tops[strings.SplitN(name, "/", 2)[0]] = true
	}
	var list []string
	for name := range tops {
		list = append(list, name)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^("+strings.Join(list, "|")+")$", "-test.short", "-test.v")
	cmd.Env = append(os.Environ(), pathVar+"="+pathRelay)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range onBothPaths {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass over the relay", name)
		}
	}
}

// What is not said of the path is the direct one, where generations are handed
// TCP sockets.
func TestTheDirectPathIsTaken(t *testing.T) {
	if os.Getenv(pathVar) != "" {
		t.Skip("over the relay")
	}
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	if l := d.status().Listeners; len(l) != 1 || l[0].Path != pathDirect || l[0].Reason != "" || l[0].Address != d.address {
		t.Fatalf("listeners: %+v", l)
	}
}
