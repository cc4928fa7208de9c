package trial

import (
	"maps"
	"strings"
	"testing"
)

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
// before, says which run on, and uninstall ends them.
func TestOtherUnitsAtALaterInstall(t *testing.T) {
	within(t, func(t *testing.T) {
		serveGo(t)
		out := run(t, "proxyctl", "install", "web", "--template", "app")
		if !strings.Contains(out, "these run on and are no generations of the service any more: web@1.service;") {
			t.Errorf("install says %s", out)
		}
		if out, code := asProxyd(t, "systemctl", "--no-ask-password", "stop", "web@1.service"); code == 0 {
			t.Errorf("the user proxyd may still stop it\n%s", out)
		}
		if out, _ := asProxyd(t, "systemctl", "--no-ask-password", "start", "app@1.service"); !strings.Contains(out, "not found") {
			t.Errorf("the user proxyd may not start the new ones\n%s", out)
		}
		run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
		run(t, "rm", "-r", "/run/proxyd/web") // as a proxyd that does not know the name
		run(t, "proxyctl", "uninstall", "web")
		if left := pids(t, "web@*"); len(left) > 0 {
			t.Errorf("after the uninstall these run: %v", left)
		}
		run(t, built+"/proxyctl", "install", "web") // to be uninstalled whole
	})
}
