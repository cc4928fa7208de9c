package trial

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The bus goes away while a generation is started, for longer than it gets to be
// ready: the promote fails, and what was begun is ended once systemd can be asked,
// by this proxyd or the next.
func TestAStartThatCannotBeGivenUp(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "web")+"\n[ready]\ndeadline = \"2s\"\n")
		run(t, "systemctl", "reload", "proxyd@web.service")
		const slow = "/etc/systemd/system/web@.service.d/slow.conf"
		write(t, slow, "[Service]\nExecStartPre=sleep infinity\nTimeoutStartSec=infinity\n")
		t.Cleanup(func() {
			run(t, "rm", "-r", "/etc/systemd/system/web@.service.d")
			run(t, "systemctl", "daemon-reload")
		})
		run(t, "systemctl", "daemon-reload")
		l := startTraffic(t, web, 2, 0)
		refused := make(chan string, 1)
		go func() { // ends with proxyctl
			out, code := try(t, "proxyctl", "promote", "v2")
			refused <- fmt.Sprint(code, " ", out)
		}()
		await(t, "the start to begin", func() bool { return property(t, "web@2.service", "SubState") == "start-pre" })
		run(t, "systemctl", "stop", "dbus.socket", "dbus.service")
		t.Cleanup(func() { run(t, "systemctl", "start", "dbus.socket") })
		if answer := <-refused; !strings.HasPrefix(answer, "5 ") || !strings.Contains(answer, "not ready within 2s") {
			t.Errorf("promote: %s", answer)
		}
		await(t, "proxyd to give up", func() bool { return mustStatus(t, "web").generation(2).State == "failed" })
		if state := property(t, "web@2.service", "SubState"); state != "start-pre" {
			t.Errorf("the unit is %s without a bus", state)
		}
		mustAnswer(t, web, "v1")
		if over == direct { // the next proxyd finds it
			run(t, "systemctl", "kill", "-s", "KILL", "proxyd@web.service")
		}
		run(t, "systemctl", "start", "dbus.socket")
		await(t, "the unit to end", func() bool { return property(t, "web@2.service", "ActiveState") == "inactive" })
		await(t, "its note to go", func() bool {
			_, err := os.Stat("/run/proxyd/web/gen-2")
			return os.IsNotExist(err)
		})
		mustServeAgain(t)
		mustAnswer(t, web, "v1")
		l.stop()
		l.check()
		run(t, "rm", slow)
		run(t, "systemctl", "daemon-reload")
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		mustTakeItsPath(t, "web")
	})
}
