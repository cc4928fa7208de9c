package trial

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What the templates of the test below may need, beside what all have: a unit that
// fails, and one whose start never ends.
const (
	brokenUnit = "[Service]\nType=oneshot\nExecStart=false\n"
	slowUnit   = "[Service]\nType=oneshot\nExecStart=sleep infinity\n"
)

// TemplatesThatFail is point 5: whatever is wrong with a unit, the promote says so with what the
// journal has, and the old generation serves on.
func TemplatesThatFail(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		l := startTraffic(t, web, 2, 2)
		write(t, "/run/systemd/system/broken.service", brokenUnit)
		write(t, "/run/systemd/system/slow.service", slowUnit)
		t.Cleanup(func() { run(t, "rm", "/run/systemd/system/broken.service", "/run/systemd/system/slow.service") })
		t.Cleanup(func() { run(t, "systemctl", "stop", "slow.service") })
		const program = "[Service]\nExecStart=\nExecStart="
		for _, c := range []struct{ name, dropIn, reason, line string }{
			{"missing binary", program + "/nowhere/web\n", "status 203: systemd could not execute its command (EXEC)", "/nowhere/web"},
			{"missing command", program + "proxyctl exec --service web -- /nowhere/web\n", "status 1", "/nowhere/web"},
			{"exit 1", program + "proxyctl exec --service web -- " + here + " backend exit\n", "status 1", "cannot read its own config"},
			{"start timeout", "[Service]\nTimeoutStartSec=1s\nExecStart=\nExecStart=proxyctl exec --service web -- " + here + " backend hang\n",
				"took too long to start", "waiting for a database"},
			{"serves and does not say so", "[Service]\nTimeoutStartSec=1s\nExecStart=\nExecStart=proxyctl exec --service web -- " + here + " backend silent\n",
				"took too long to start", "start operation timed out"},
			{"killed", program + "proxyctl exec --service web -- " + here + " backend kill\n", "signal 9", "growing"},
			// With root's rights (+), that the group can be marked.
			{"out of memory", program + "+proxyctl exec --service web -- " + here + " backend oom\n", "for want of memory (oom-kill)", "growing"},
			{"a unit that it needs fails", "[Unit]\nRequires=broken.service\nAfter=broken.service\n",
				"a unit that its unit needs did not start (dependency)", "Dependency failed"},
			{"its job takes too long", "[Unit]\nJobTimeoutSec=1s\nWants=slow.service\nAfter=slow.service\n",
				"its unit did not begin to start in time (timeout)", "timed out"},
			{"its job is canceled", "[Unit]\nWants=slow.service\nAfter=slow.service\n", "somebody canceled the start of its unit (canceled)", ""},
			{"skipped for a condition", "[Unit]\nConditionPathExists=/nowhere\n", "its unit was skipped, ", "ConditionPathExists=/nowhere"},
			{"skipped by a command", "[Service]\nExecCondition=sh -c 'echo not on this host; exit 1'\n", "its unit was skipped, ", "not on this host"},
			{"an assertion", "[Unit]\nAssertPathExists=/nowhere\n", "an assertion of its unit does not hold (assert)", "Assertion failed"},
			{"bad unit", "[Service]\nExecStart=\n", "bad unit file setting", "ExecStart"},
			{"a step before it", "[Service]\nExecStartPre=sh -c 'echo no database; exit 3'\n", "failed before its main process ran", "no database"},
			// It serves by then, and would get clients.
			{"a step after it", "[Service]\nType=exec\nExecStartPost=+sh -c 'until proxyctl -s web status -o json | grep -q \"its unit is still starting\"; do :; done; echo smoke test failed; exit 3'\n",
				"its unit's ExecStartPost= (sh) failed with status 3", "smoke test failed"},
		} {
			t.Run(c.name, func(t *testing.T) {
				write(t, "/etc/systemd/system/web@.service.d/fail.conf", c.dropIn)
				run(t, "systemctl", "daemon-reload")
				if c.name == "its job is canceled" {
					canceled := make(chan struct{})
					defer func() { <-canceled }()
					go cancelJob(t, canceled)
				}
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

// cancelJob cancels the start of a generation's unit once its job waits, and ends
// with that.
func cancelJob(t *testing.T, canceled chan<- struct{}) {
	defer close(canceled)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		jobs, _ := exec.Command("systemctl", "list-jobs", "--plain", "--no-legend").Output()
		for line := range strings.Lines(string(jobs)) {
			if f := strings.Fields(line); len(f) == 4 && strings.HasPrefix(f[1], "web@") && f[3] == "waiting" {
				if out, err := exec.Command("systemctl", "cancel", f[0]).CombinedOutput(); err != nil {
					t.Errorf("cancel %s: %v %s", line, err, out)
				}
				return
			}
		}
	}
	t.Error("waited in vain for a job")
}
