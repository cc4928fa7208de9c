package trial

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A unit that is no generation any more, as the state knows nothing of it, and goes
// on accepting while it ends: its sockets are nobody else's before it has ended,
// also after the next restart of proxyd.
func TestAUnitThatIsLeavingSharesNoClients(t *testing.T) {
	within(t, func(t *testing.T) {
		over = direct
		defer func() { over = relay }()
		serveGo(t)
		withoutProbation(t)
		state := run(t, "cat", "/var/lib/proxyd/web/state.json")
		run(t, "proxyctl", "promote", "v2")
		dir := "/run/systemd/system/web@2.service.d"
		write(t, dir+"/slow.conf", "[Service]\nKillSignal=SIGCONT\nTimeoutStopSec=infinity\n")
		t.Cleanup(func() { run(t, "rm", "-r", dir) })
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "stop", "proxyd@web.service")
		run(t, "sh", "-euc", "rm -f /var/lib/proxyd/web/state* /run/proxyd/web/state*")
		write(t, "/var/lib/proxyd/web/state.json", state)
		run(t, "chown", "proxyd:proxyd", "/var/lib/proxyd/web/state.json")
		for i, release := range []string{"v3", "v1"} {
			run(t, "systemctl", "start", "proxyd@web.service")
			if i == 0 && mustStatus(t, "web").Current != 1 {
				t.Fatalf("current is generation %d", mustStatus(t, "web").Current)
			}
			if state := property(t, "web@2.service", "ActiveState"); state != "deactivating" {
				t.Fatalf("web@2.service is %s", state)
			}
			run(t, "proxyctl", "promote", release)
			mustTakeItsPath(t, "web")
			want := fmt.Sprintf("%s %d", release, mustStatus(t, "web").Current)
			for range 100 {
				if answer, err := get(web, "/"); err != nil || answer != want {
					t.Fatalf("a client got %q, %v, not %q", answer, err, want)
				}
			}
			if i == 0 {
				run(t, "systemctl", "stop", "proxyd@web.service")
			}
		}
		run(t, "systemctl", "kill", "-s", "KILL", "web@2.service")
		await(t, "the sockets of web@2.service to be free", func() bool {
			_, err := os.Stat("/run/proxyd/web/leaving.json")
			return os.IsNotExist(err)
		})
		for range lines {
			run(t, "proxyctl", "promote", "v2")
			mustTakeItsPath(t, "web")
		}
	})
}

// Clients wait while proxyd starts, so those that are no generations any more are all
// told to end before any is waited for, also under a template of before: here none
// ends before the other was told.
func TestUnitsThatLeaveAreToldAtOnce(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		withoutProbation(t)
		state := run(t, "cat", "/var/lib/proxyd/web/state.json")
		run(t, "proxyctl", "promote", "v2")
		run(t, "proxyctl", "promote", "v3")
		for unit, other := range map[string]string{"web@2.service": "web@3.service", "web@3.service": "web@2.service"} {
			dir := "/run/systemd/system/" + unit + ".d"
			write(t, dir+"/slow.conf", "[Service]\nTimeoutStopSec=infinity\nExecStop=+sh -c 'touch /run/told-"+unit+"; until [ -e /run/told-"+other+" ]; do sleep 0.01; done'\n")
			t.Cleanup(func() { run(t, "rm", "-rf", dir, "/run/told-"+unit) })
		}
		run(t, "proxyctl", "install", "web", "--unit", "web@{generation}.service", "--unit", "app@{generation}.service")
		write(t, "/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "app"))
		run(t, "systemctl", "stop", "proxyd@web.service")
		run(t, "sh", "-euc", "rm -f /var/lib/proxyd/web/state* /run/proxyd/web/state*")
		write(t, "/var/lib/proxyd/web/state.json", state)
		run(t, "chown", "proxyd:proxyd", "/var/lib/proxyd/web/state.json")
		run(t, "systemctl", "start", "proxyd@web.service")
		if st := mustStatus(t, "web"); st.Current != 1 {
			t.Errorf("current is generation %d", st.Current)
		}
		mustAnswer(t, web, "v1")
		log := run(t, "journalctl", "--no-pager", "-o", "cat", "_SYSTEMD_INVOCATION_ID="+property(t, "proxyd@web.service", "InvocationID"))
		if !strings.Contains(log, "ended units that are no generations any more") || strings.Contains(log, "take their time to end") {
			t.Errorf("one was waited for before the other was told:\n%s", log)
		}
		if left := pids(t, "web@*"); len(left) != 1 {
			t.Errorf("these run: %v", left)
		}
	})
}
