package trial

import (
	"os"
	"strings"
	"testing"
)

// Point 5: whatever is wrong with a unit, the promote says so with what the
// journal has, and the old generation serves on.
func TestTemplatesThatFail(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		l := startTraffic(t, web, 2, 2)
		const exec = "[Service]\nExecStart=\nExecStart="
		for _, c := range []struct{ name, dropIn, reason, line string }{
			{"missing binary", exec + "/nowhere/web\n", "status 203: systemd could not execute its command (EXEC)", "/nowhere/web"},
			{"missing command", exec + "proxyctl exec --service web -- /nowhere/web\n", "status 1", "/nowhere/web"},
			{"exit 1", exec + "proxyctl exec --service web -- " + here + " backend exit\n", "status 1", "cannot read its own config"},
			{"start timeout", "[Service]\nTimeoutStartSec=1s\nExecStart=\nExecStart=proxyctl exec --service web -- " + here + " backend hang\n",
				"took too long to start", "waiting for a database"},
			{"serves and does not say so", "[Service]\nTimeoutStartSec=1s\nExecStart=\nExecStart=proxyctl exec --service web -- " + here + " backend silent\n",
				"took too long to start", "start operation timed out"},
			{"killed by the kernel", exec + "proxyctl exec --service web -- " + here + " backend oom\n", "signal 9", "growing"},
			{"bad unit", "[Service]\nExecStart=\n", "bad unit file setting", "ExecStart"},
			{"a step before it", "[Service]\nExecStartPre=sh -c 'echo no database; exit 3'\n", "failed before its main process ran", "no database"},
		} {
			t.Run(c.name, func(t *testing.T) {
				write(t, "/etc/systemd/system/web@.service.d/fail.conf", c.dropIn)
				run(t, "systemctl", "daemon-reload")
				out, code := try(t, "proxyctl", "promote", "v2")
				if code != 5 || !strings.Contains(out, c.reason) || !strings.Contains(out, c.line) {
					t.Errorf("exit code %d\n%s", code, out)
				}
				mustAnswer(t, web, "v1")
				out, code = try(t, "proxyd", "check", "--config", "/etc/proxyd/web.toml")
				if bad := c.name == "bad unit"; (code != 0) != bad || bad && !strings.Contains(out, "bad-setting") {
					t.Errorf("check: exit code %d\n%s", code, out)
				}
			})
		}
		if err := os.RemoveAll("/etc/systemd/system/web@.service.d"); err != nil {
			t.Fatal(err)
		}
		run(t, "systemctl", "daemon-reload")
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v2")
		l.stop()
		l.check()
		if units := pids(t, "web@*"); len(units) != 2 {
			t.Errorf("units that run: %v", units)
		}
	})
}
