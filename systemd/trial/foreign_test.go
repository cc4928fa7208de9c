package trial

import "testing"

// What runs in units of the template and was not started by this proxyd is left
// alone, also when it is started again; and what is held is no reason for systemd
// to wait for it.
func TestUnitsOfOthersAreLeftAlone(t *testing.T) {
	within(t, func(t *testing.T) {
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
		if after := property(t, foreign, "MainPID"); after != before || after == "0" {
			t.Errorf("the other's process was %s and is %s", before, after)
		}
	})
}
