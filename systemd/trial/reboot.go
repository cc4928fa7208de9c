package trial

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// Reboot is point 8: the machine goes down, in order or not, and the release that was
// current is current again, though others were there before it.
func Reboot(t *testing.T) {
	if booted.Inside() {
		return // it is the outside that boots
	}
	for _, over = range []string{relay, direct} {
		t.Run(over, testReboot)
	}
	over = relay
}

func testReboot(t *testing.T) {
	m := machine(t)
	began := time.Now()
	must := func(argv ...string) string {
		t.Helper()
		return m.Run(t, argv...)
	}
	file := func(path, text string, exec bool) {
		t.Helper()
		mode := map[bool]uint32{false: 0o644, true: 0o755}[exec]
		if err := m.WriteFile(path, text, os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"v1", "v2", "v3"} {
		file("/srv/web/"+v+"/web", "#!/bin/sh\nexec "+here+" backend\n", true)
	}
	must(slices.Concat([]string{built + "/proxyctl", "install", "web", "--listen", webPort}, members())...)
	file("/etc/systemd/system/web@.service", goUnit("web"), false)
	file("/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "web"), false)
	must("systemctl", "daemon-reload")
	must("systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if m.PID() == 0 { // it failed while the machine was down
			if err := m.Boot(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := m.Try(ctx, "proxyctl", "uninstall", "--purge", "web"); err != nil {
			t.Error(out, err)
		}
		if _, err := m.Try(ctx, "rm", "-r", "/srv/web", "/etc/systemd/system/web@.service"); err != nil {
			t.Error(err)
		}
	})
	must("proxyctl", "promote", "v3")
	must("proxyctl", "promote", "v2") // it is on probation for longer than this test takes
	for _, c := range []struct {
		name string
		down func(context.Context) error
	}{
		{"in order", m.Stop},
		{"the current generation before all else", func(ctx context.Context) error {
			// In /run, so that it is gone with the boot. The one before still runs when
			// proxyd sees the current one end.
			must("proxyctl", "promote", "v3")
			must("proxyctl", "promote", "v2")
			var st status
			if err := json.Unmarshal([]byte(must("proxyctl", "status", "-o", "json")), &st); err != nil {
				return err
			}
			dir := "/run/systemd/system/" + st.generation(st.Previous).Unit + ".d"
			file("/run/systemd/system/web@.service.d/order.conf", "[Unit]\nAfter=proxyd@web.service dbus.service\n", false)
			file(dir+"/slow.conf", "[Service]\nExecStop=/bin/sleep 2\n", false)
			must("systemctl", "daemon-reload")
			return m.Stop(ctx)
		}},
		{"power cut", func(context.Context) error { return m.Cut() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			if err := c.down(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.Boot(ctx); err != nil {
				t.Fatal(err)
			}
			must("systemctl", "start", "multi-user.target")
			answer := must("curl", "-sS", "--max-time", fmt.Sprint(int(patience/time.Second)), "http://"+web+"/")
			if !strings.HasPrefix(answer, "v2 ") {
				t.Errorf("after the boot %q answers", answer)
			}
			status := must("proxyctl", "status")
			if !strings.Contains(status, "(v2) is current") || !strings.Contains(status, over) {
				t.Error(status)
			}
			if log := must("journalctl", "--no-pager", "-u", "proxyd@web", fmt.Sprintf("--since=@%d", began.Unix())); strings.Contains(log, "cannot take over") {
				t.Errorf("what ended with the machine was looked for:\n%s", log)
			}
			if history := must("proxyctl", "history"); strings.Contains(history, "reverted") {
				t.Errorf("the shutdown was taken for a failure:\n%s", history)
			}
		})
	}
}
