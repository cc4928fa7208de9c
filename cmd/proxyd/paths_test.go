package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The tests that hold on both paths. They run over the direct one, as proxyd
// chooses it by itself, and in TestOverTheRelay once more over the relay.
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
	"TestKilledWithinARevert",
	"TestADamagedStateFileForgetsNothing",
	"TestALostStateIsRebuiltFromWhatRuns",
	"TestAFullDisk",
	"TestAfterAReboot",
	"TestAChangedCommandIsForNewGenerations",
	"TestNonBlocking",
	"TestHoldAndResume",
	"TestAProgramThatShutsItsSocketDown",
	"TestSwitchesBackToBackUnderLoad",
	"TestCheckBesideARunningProxyd",
}

// The other tests with a proxyd that serves, and why they hold on one path only, or
// are the same on both.
var onOnePath = map[string]string{
	"TestRealNginxKnowsItsClients":                         relayOnly,
	"TestProxyProtocolOnSystemdsListener":                  relayOnly,
	"TestExhaustedDescriptors":                             relayOnly, // they are proxyd's
	"TestAPromoteWithFewDescriptors":                       relayOnly,
	"TestMaxConnectionsWaitInTheQueue":                     relayOnly,
	"TestALostStateIsRebuiltFromAProgramThatBindsByItself": relayOnly,
	"TestALostStateIsRebuiltFromAProgramWithoutAMark":      relayOnly,

	"TestWhatKeepsADrainingGeneration":                        directOnly, // the relay counts what it carries
	"TestWhatTheDrainDeadlineEnds":                            directOnly,
	"TestTheDirectPathIsTaken":                                directOnly,
	"TestDirectThatCannotBe":                                  directOnly,
	"TestFullQueuesAcrossSwitchesAndKills":                    directOnly, // a queue's bytes were taken by the relay
	"TestKilledUnderLoadAndNobodyNotices":                     directOnly,
	"TestKilledBeforeAProgramThatClosesDescriptors":           directOnly,
	"TestKilledWithoutTheRightToTrace":                        directOnly, // nobody shares the relay's listeners
	"TestKilledWithItsHolder":                                 directOnly,
	"TestWhenTheHolderEnds":                                   directOnly,
	"TestWhatCannotBeEndedSharesNoClients":                    directOnly,
	"TestMovesToTheDirectPath":                                directOnly,
	"TestAProgramThatJoinsTheListenersGroup":                  directOnly,
	"TestAColdStartWithWaitingClients":                        directOnly,
	"TestAPromoteWhileAHandshakeFromBeforeARestartIsUnderWay": directOnly,
	"TestDirectThatIsDemandedAndCannotBeJustNow":              directOnly,
	"TestAMoveThatFails":                                      directOnly,
	"TestSocketsOfAUnitThatCannotBeSteered":                   eachItself,
	"TestUnequalLinesOfASocketUnit":                           eachItself,
	"TestAGroupOfAnotherUser":                                 directOnly,
	"TestReasonsForTheRelay":                                  eachItself,
	"TestALostRuntimeDirectory":                               eachItself,
	"TestASecondProxydOfAServiceIsRefused":                    noClients,
	"TestCheckTellsOfTheState":                                noClients,
	"TestAStubbornGenerationIsKilled":                         noClients,
	"TestAnEscapedGrandchildEndsWithItsGeneration":            noClients,
	"TestTwoOperationsAtOnceAreRefusedByName":                 noClients,
	"TestIfCurrentIsACompareAndSwap":                          noClients,
	"TestAClientThatGoesAwayCancelsNothing":                   noClients,
	"TestADriverThatCannotTakeOverIsRefused":                  noClients,
	"TestAStateOfANewerSchemaIsRefusedAndNothingIsTouched":    noClients,
	"TestNobodyReadsWhatProxydWrites":                         noClients,
	"TestTheReaderGoesAway":                                   noClients,
	"TestWhatSystemdIsTold":                                   noClients,

	"TestGenerationsAtAnAddressOfBefore":    directOnly,
	"TestAGenerationOfBeforeThatDoesNotEnd": directOnly,
	"TestAGenerationOfBeforeAListener":      relayOnly,
}

const (
	relayOnly  = "what it tries only the relay does"
	directOnly = "what it tries only the direct path does"
	eachItself = "it takes each path by itself"
	noClients  = "what it tries has nothing to do with clients in flight"
)

// onThePath gives the path that this run is about.
func onThePath() string {
	if os.Getenv(pathVar) == pathRelay {
		return pathRelay
	}
	return pathDirect
}

// mustKeepToThePath wants the listener and each generation that runs on the path
// that this run is about. Clients do not notice where proxyd falls back to the
// relay; this does.
func (d *daemonUnderTest) mustKeepToThePath() {
	d.t.Helper()
	st := d.status()
	for _, l := range st.Listeners {
		if l.Path != onThePath() {
			d.t.Fatalf("listener %q is on the path %q, not %q: %s", l.Name, l.Path, onThePath(), l.Reason)
		}
	}
	for _, g := range st.Generations {
		if ended := g.State == "stopped" || g.State == "failed"; !ended && g.Path != onThePath() {
			d.t.Fatalf("generation %d, %s, is on the path %q, not %q", g.ID, g.State, g.Path, onThePath())
		}
	}
}

func TestOverTheRelay(t *testing.T) {
	if os.Getenv(pathVar) != "" {
		return // this is that run
	}
	t.Parallel() // with the one that waits for a minute
	var tops []string
	for _, name := range onBothPaths {
		tops = append(tops, strings.SplitN(name, "/", 2)[0])
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^("+strings.Join(tops, "|")+")$", "-test.short", "-test.v")
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

// Each test that starts a proxyd is one of both lists, so that what is new is tried
// over both paths, or says why not.
func TestEveryTestSaysWhichPathItTries(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string][]string{} // function: the functions that it names
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if name, ok := n.(*ast.Ident); ok {
					calls[f.Name.Name] = append(calls[f.Name.Name], name.Name)
				}
				return true
			})
		}
	}
	var starts func(f string, seen map[string]bool) bool
	starts = func(f string, seen map[string]bool) bool {
		if f == "newDaemon" {
			return true
		}
		if seen[f] {
			return false
		}
		seen[f] = true
		return slices.ContainsFunc(calls[f], func(g string) bool { return starts(g, seen) })
	}
	isTest := regexp.MustCompile(`^Test[A-Z]`)
	said := map[string]bool{}
	for _, name := range onBothPaths {
		said[strings.SplitN(name, "/", 2)[0]] = true
	}
	for name := range onOnePath {
		if said[name] {
			t.Errorf("%s is in both lists", name)
		}
		said[name] = true
	}
	for f := range calls {
		if isTest.MatchString(f) && starts(f, map[string]bool{}) && !said[f] {
			t.Errorf("%s starts a proxyd, and no list says over which path", f)
		}
	}
	for name := range said {
		if !starts(name, map[string]bool{}) {
			t.Errorf("%s is in a list, and starts no proxyd", name)
		}
	}
}
