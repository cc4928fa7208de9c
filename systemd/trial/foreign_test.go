package trial

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// What runs in units of the template and was not started by this proxyd is left
// alone, also when it is started again; and what is held is no reason for systemd
// to wait for it.
func TestUnitsOfOthersAreLeftAlone(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		const foreign = "web@900.service"
		write(t, "/run/systemd/system/"+foreign+".d/own.conf", "[Service]\nType=exec\nExecStart=\nExecStart=sleep infinity\n")
		run(t, "systemctl", "daemon-reload")
		t.Cleanup(func() {
			run(t, "systemctl", "stop", foreign)
			run(t, "rm", "-r", "/run/systemd/system/"+foreign+".d")
			run(t, "systemctl", "daemon-reload")
		})
		run(t, "systemctl", "start", foreign)
		before := property(t, foreign, "MainPID")

		run(t, "proxyctl", "hold")
		run(t, "systemctl", "restart", "proxyd@web.service") // returns once it is ready
		if got := mustStatus(t, "web").State; got != "held" {
			t.Errorf("after a restart it is %s", got)
		}
		run(t, "proxyctl", "resume")
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		if after := property(t, foreign, "MainPID"); after != before || after == "0" {
			t.Errorf("the other's process was %s and is %s", before, after)
		}

		run(t, "proxyctl", "promote", "v2")
		if out := run(t, "proxyctl", "uninstall", "web"); !strings.Contains(out, "these, which run on: "+foreign+"\n") {
			t.Errorf("uninstall says %s", out)
		}
		if left := pids(t, "web@*"); !maps.Equal(left, map[string]string{foreign: before}) {
			t.Errorf("after the uninstall these run: %v", left)
		}
		run(t, built+"/proxyctl", "install", "web") // to be uninstalled whole
	})
}

// A later install with other units takes back what proxyd may do with those of
// before, but for those that run, and uninstall ends them.
func TestOtherUnitsAtALaterInstall(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		out := run(t, "proxyctl", "install", "web", "--template", "app")
		if !strings.Contains(out, "these of before run on until they are replaced, and proxyd may end them: web@1.service\n") {
			t.Errorf("install says %s", out)
		}
		for unit, allowed := range map[string]bool{"web@1.service": true, "web@2.service": false, "app@1.service": true, "app@v1.service": false} {
			out, _ := asProxyd(t, "systemctl", "--no-ask-password", "start", unit)
			if denied := strings.Contains(out, "denied") || strings.Contains(out, "uthentication"); denied == allowed {
				t.Errorf("the user proxyd starts %s: %s", unit, out)
			}
		}
		run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
		run(t, "rm", "-r", "/run/proxyd/web")
		run(t, "proxyctl", "uninstall", "web")
		if left := pids(t, "web@*"); len(left) > 0 {
			t.Errorf("after the uninstall these run: %v", left)
		}
		run(t, built+"/proxyctl", "install", "web") // to be uninstalled whole
	})
}

// What runs is known by the durable state alone where the runtime directory was
// lost, its notes with it: what cannot be reached any more is ended, and another run
// of the current release takes its place, without waiting for that. What was handed
// the listeners' own sockets runs on.
func TestALostRuntimeDirectory(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		run(t, "systemctl", "stop", "proxyd@web.service")
		run(t, "rm", "-r", "/run/proxyd/web")
		run(t, "systemctl", "start", "proxyd@web.service")
		mustAnswer(t, web, "v2")
		st := mustStatus(t, "web")
		if kept := st.Current == 2; len(before) != 2 || st.current().Release != "v2" || kept != (over == direct) {
			t.Errorf("generation %d is current", st.Current)
		}
		if over == relay {
			awaitUnit(t, "web@2.service", "inactive")
		} else if after := pids(t, "web@2.service"); after["web@2.service"] != before["web@2.service"] {
			t.Errorf("the generations were %v, the current one is %v", before, after)
		}
		if env := run(t, "cat", fmt.Sprintf("/run/proxyd/web/generation-%d.env", st.Current)); !strings.Contains(env, "PROXYD_RELEASE=\"v2\"") {
			t.Errorf("its environment is %q", env)
		}
		run(t, "proxyctl", "revert")
		mustAnswer(t, web, "v1")
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		run(t, "proxyctl", "uninstall", "web")
		if left := pids(t, "web@*"); len(left) > 0 {
			t.Errorf("after the uninstall these run: %v", left)
		}
		run(t, built+"/proxyctl", "install", "web") // to be uninstalled whole
	})
}

// Generations that the next proxyd can take over but not reach are stopped as any
// other, and nobody waits until they have ended: another run of the current release
// serves while that one's unit still ends, however long it takes. The same where the
// config names another template by then.
func TestAForgottenGenerationMayFinish(t *testing.T) {
	within(t, func(t *testing.T) {
		for _, template := range []string{"web", "app"} {
			t.Run(template, func(t *testing.T) {
				serveGo(t)
				run(t, "proxyctl", "promote", "v2")
				for _, unit := range []string{"web@1.service", "web@2.service"} {
					dir := "/run/systemd/system/" + unit + ".d"
					write(t, dir+"/slow.conf", "[Service]\nKillSignal=SIGCONT\nTimeoutStopSec=infinity\n")
					t.Cleanup(func() { run(t, "rm", "-r", dir) })
				}
				run(t, "proxyctl", "install", "web", "--unit", "web@{generation}.service", "--unit", template+"@{generation}.service")
				write(t, "/etc/proxyd/web.toml", strings.Replace(fmt.Sprintf(goConfig, template), "5s", "10m", 1))
				await(t, "it to stand by", func() bool { return mustStatus(t, "web").generation(1).State == "standby" })
				before := pids(t, "web@*")
				run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
				run(t, "rm", "/run/proxyd/web/gen-1/http.sock", "/run/proxyd/web/gen-2/http.sock") // so they cannot be reached any more
				run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
				mustAnswer(t, web, "v2")
				st := mustStatus(t, "web")
				if st.Current != 3 || st.current().Unit != "web@3.service" {
					t.Errorf("current is %+v", st.current())
				}
				for unit, pid := range before {
					if state, now := property(t, unit, "ActiveState"), property(t, unit, "MainPID"); state != "deactivating" || now != pid {
						t.Errorf("%s is %s, its process %s; it was %s", unit, state, now, pid)
					}
				}
				for id := range uint64(2) {
					if g := st.generation(id + 1); g.State != "stopping" || !strings.Contains(g.Reason, "its socket has gone") {
						t.Errorf("generation %d is %s: %s", g.ID, g.State, g.Reason)
					}
					run(t, "systemctl", "kill", "-s", "KILL", fmt.Sprintf("web@%d.service", id+1))
				}
				await(t, "them to be known to have ended", func() bool {
					st := mustStatus(t, "web")
					return st.generation(1).State == "stopped" && st.generation(2).State == "stopped"
				})
			})
		}
	})
}
