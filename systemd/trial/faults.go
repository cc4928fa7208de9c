package trial

import (
	"maps"
	"strconv"
	"testing"
)

// faultPoints are the steps of a promote at which proxyd is killed, in their
// order: see the calls of Config.Fault in package backend. The identity of a unit
// is written down twice, before and after systemd has started it. From routed on
// the kernel is steered to the new generation, from committed on it is current.
var faultPoints = []struct {
	name             string
	routed, switched bool
}{
	{"start", false, false},
	{"identified", false, false},
	{"identified 2", false, false},
	{"started", false, false},
	{"prove", false, false},
	{"switch", false, false},
	{"prepared", false, false},
	{"routed", true, false},
	{"committed", true, true},
	{"answer", true, true},
}

// KilledAtEveryStep has proxyd killed with KILL at every step of a promote, and of
// a revert, and systemd starts the next: no client is lost, one of the two generations is
// current, both are the processes that they were, and nothing is left over. What
// it was relaying ends with it, on the direct path nothing does.
func KilledAtEveryStep(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		armFaults(t)
		l := startTraffic(t, web, 4, 0)
		l.relayed.Store(over == relay)
		for _, f := range faultPoints {
			t.Run(f.name, func(t *testing.T) {
				old := mustStatus(t, "web").current()
				next := map[string]string{"v1": "v2", "v2": "v3", "v3": "v1"}[old.Release]
				setFault(t, f.name)
				k := keepAlive(t, web)
				mustBeKilled(t, "promote", next)
				st := mustServeAgain(t)
				mustStillBe(t, st, old)
				release := old.Release
				if f.switched {
					release = next
				}
				if now := st.current(); now.Release != release || (now.ID == old.ID) == f.switched {
					t.Fatalf("current is %+v; it was %+v", now, old)
				}
				mustAnswer(t, web, release)
				mustTakeItsPath(t, "web")
				if over == direct {
					k.mustGoOn(t, "a kill of proxyd at "+f.name, 20)
					k.finish()
				} else {
					k.mustHaveBeenCut(t, "a kill of proxyd")
				}
				l.runFor(50)
				if f.switched { // what stands by is not left over
					await(t, "the previous generation to stand by", func() bool {
						st := mustStatus(t, "web")
						return st.generation(st.Previous).State == "standby"
					})
					run(t, "proxyctl", "retire")
				}
				current := mustStatus(t, "web").current()
				await(t, "nothing to be left over", func() bool {
					return maps.Equal(pids(t, "web@*"), map[string]string{current.Unit: strconv.Itoa(current.PID)})
				})
				if f.routed && !f.switched {
					if g := mustStatus(t, "web").generation(old.ID + 1); g.State != "failed" {
						t.Errorf("what was cut short is %+v", g)
					}
				}
			})
		}

		// A revert is on disk after the route was switched, so that it works with a
		// full disk: killed in between, it was none.
		t.Run("revert", func(t *testing.T) {
			first := mustStatus(t, "web").current()
			run(t, "proxyctl", "promote", "v2")
			await(t, "the previous generation to stand by", func() bool { return mustStatus(t, "web").generation(first.ID).State == "standby" })
			second := mustStatus(t, "web").current()
			for _, f := range []struct {
				name     string
				switched bool
			}{{"switch", false}, {"unsaved", false}, {"answer", true}} {
				setFault(t, f.name)
				k := keepAlive(t, web)
				mustBeKilled(t, "revert")
				st := mustServeAgain(t)
				mustStillBe(t, st, first)
				mustStillBe(t, st, second)
				want := second
				if f.switched {
					want = first
				}
				if st.Current != want.ID {
					t.Fatalf("killed at %s: generation %d is current, not %d", f.name, st.Current, want.ID)
				}
				mustAnswer(t, web, want.Release)
				mustTakeItsPath(t, "web")
				if over == direct {
					k.mustGoOn(t, "a kill of proxyd at "+f.name, 20)
					k.finish()
				} else {
					k.mustHaveBeenCut(t, "a kill of proxyd")
				}
				l.runFor(50)
			}
			if left := pids(t, "web@*"); len(left) != 2 {
				t.Errorf("these run: %v", left)
			}
		})
		l.stop()
		l.check()
		t.Logf("%d requests, %d were being relayed at a crash", l.done.Load(), l.cut.Load())
	})
}

// armFaults has service web run the proxyd that ends at the step which a file
// names. The next one that systemd starts after it finds the file no more.
func armFaults(t *testing.T) {
	t.Helper()
	write(t, "/etc/systemd/system/proxyd@web.service.d/fault.conf", "[Service]\nEnvironmentFile=-"+faultFile+"\nExecStartPost=+rm -f "+faultFile+
		"\nExecStart=\nExecStart="+built+"/proxyd-faults --name %i --config /etc/proxyd/%i.toml\n")
	t.Cleanup(func() { run(t, "rm", "-f", "/etc/systemd/system/proxyd@web.service.d/fault.conf", faultFile) })
	run(t, "systemctl", "daemon-reload")
}

const faultFile = "/run/fault.env"

// setFault has the next proxyd, which is begun here, end at a step.
func setFault(t *testing.T, step string) {
	t.Helper()
	write(t, faultFile, "PROXYD_FAULT="+step+"\n")
	run(t, "systemctl", "restart", "proxyd@web.service")
}

// mustBeKilled has proxyd end at the step that was set, in what proxyctl is told
// to do.
func mustBeKilled(t *testing.T, verb ...string) {
	t.Helper()
	before := property(t, "proxyd@web.service", "NRestarts")
	if out, code := try(t, append([]string{"proxyctl"}, verb...)...); code == 0 {
		t.Fatalf("%v was done, the step was not met\n%s", verb, out)
	}
	await(t, "another proxyd", func() bool {
		return property(t, "proxyd@web.service", "NRestarts") != before && property(t, "proxyd@web.service", "ActiveState") == "active"
	})
}

// mustServeAgain gives the status once proxyd serves.
func mustServeAgain(t *testing.T) (st status) {
	t.Helper()
	await(t, "proxyd to serve", func() bool {
		var err error
		st, err = statusOf(t, "web")
		return err == nil && st.State == "serving"
	})
	return st
}

// mustStillBe wants a generation to be the process that it was.
func mustStillBe(t *testing.T, st status, was generation) {
	t.Helper()
	if now := st.generation(was.ID); now.PID != was.PID || now.Unit != was.Unit {
		t.Fatalf("generation %d was process %d in %s, and is %d in %s", was.ID, was.PID, was.Unit, now.PID, now.Unit)
	}
}
