package trial

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TheTemplateChanges: a template that is another one by now orphans nothing: what runs is taken over
// and serves on until it is replaced, and then it ends as it should.
func TheTemplateChanges(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		l := startTraffic(t, web, 6, 0)
		config := fmt.Sprintf(goConfig, "web") + "\n[drain]\nkeep_previous = \"0s\"\n"

		write(t, "/etc/proxyd/web.toml", strings.Replace(config, "web@{generation}", "web@{release}-{generation}", 1))
		if out, code := try(t, "proxyctl", "reload"); code == 0 || !strings.Contains(out, "backend.unit cannot change while proxyd runs: a restart of proxyd applies it") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		// Both, so that proxyd may also start what ran in the units of before.
		run(t, "proxyctl", "install", "web", "--unit", "web@{generation}.service", "--unit", "web@{release}-{generation}.service")
		run(t, "systemctl", "restart", "proxyd@web.service")
		l.runFor(200)
		if after := pids(t, "web@*"); after["web@2.service"] != before["web@2.service"] {
			t.Fatalf("the generations were %v and are %v", before, after)
		}
		mustAnswer(t, web, "v2")
		if g := mustStatus(t, "web").current(); g.Unit != "web@2.service" {
			t.Errorf("current is %+v", g)
		}
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		awaitUnit(t, "web@2.service", "inactive")
		if g := mustStatus(t, "web").current(); g.Unit != `web@v3-3.service` && g.Unit != `web@v3\x2d3.service` {
			t.Errorf("current is %+v", g)
		}
		// What ran is what a revert runs.
		run(t, "proxyctl", "revert", "--to", "2")
		mustAnswer(t, web, "v2")
		again := mustStatus(t, "web").current()
		if again.Unit != "web@2.service" {
			t.Errorf("current is %+v", again)
		}

		// It is taken over also where nothing tells of it but the note beside its sockets.
		write(t, "/run/systemd/system/proxyd@web.service.d/lose.conf",
			"[Service]\nExecStartPre=sh -c 'rm /var/lib/proxyd/web/state.json* /run/proxyd/web/state.json'\n")
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "restart", "proxyd@web.service")
		run(t, "rm", "-r", "/run/systemd/system/proxyd@web.service.d")
		run(t, "systemctl", "daemon-reload")
		l.runFor(200)
		if g := mustStatus(t, "web").current(); g.ID != 2 || g.Release != "v2" || g.Unit != "web@2.service" || g.PID != again.PID {
			t.Errorf("current is %+v", g)
		}

		// Where proxyd may not end a unit any more, as install would have it, it says so,
		// and what to do.
		run(t, "proxyctl", "install", "web", "--template", "app")
		run(t, "sed", "-i", `s#, /^web@2[^/]*/##`, "/etc/polkit-1/rules.d/50-proxyd.rules")
		write(t, "/etc/proxyd/web.toml", strings.Replace(config, "web@", "app@", 1))
		write(t, "/etc/systemd/system/app@.service", goUnit("web"))
		t.Cleanup(func() { run(t, "rm", "/etc/systemd/system/app@.service") })
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "restart", "proxyd@web.service")
		l.runFor(200)
		this := "_SYSTEMD_INVOCATION_ID=" + property(t, "proxyd@web.service", "InvocationID")
		run(t, "proxyctl", "promote", "v1")
		mustAnswer(t, web, "v1")
		const advice = "end the unit yourself (systemctl stop web@2.service)"
		await(t, "proxyd to say that it may not end the unit", func() bool {
			return strings.Contains(run(t, "journalctl", "--no-pager", this), advice)
		})
		run(t, "systemctl", "stop", "web@2.service")
		await(t, "generation 2 to be known to have ended", func() bool { return mustStatus(t, "web").generation(2).State == "stopped" })
		// A template that has been taken away is no reason not to start what ran in it.
		run(t, "rm", "/etc/systemd/system/web@.service")
		run(t, "systemctl", "daemon-reload")
		run(t, "proxyctl", "revert", "--to", "2")
		mustAnswer(t, web, "v2")
		if g := mustStatus(t, "web").current(); g.Unit != "app@2.service" {
			t.Errorf("current is %+v", g)
		}
		l.stop()
		l.check()
		if left := pids(t, "web@*"); len(left) != 0 {
			t.Errorf("units are left: %v", left)
		}
		run(t, "systemctl", "stop", "app@*.service")
	})
}

func awaitUnit(t *testing.T, unit, state string) {
	t.Helper()
	await(t, unit+" to be "+state, func() bool { return property(t, unit, "ActiveState") == state })
}

// TheDriverChanges: a driver that cannot take over what runs is refused, with what to do, before
// anything has changed.
func TheDriverChanges(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		config := fmt.Sprintf(goConfig, "web")
		for key, changed := range map[string]string{
			"backend.driver": "[backend]\ncommand = [\"/srv/web/{release}/web\"]\n",
			"backend.scope":  strings.Replace(config, "[backend]", "[backend]\nscope = \"user\"", 1),
		} {
			before := pids(t, "web@*")
			refusal := "generation 1 (v1) runs in unit web@1.service, and with " + key
			const advice = "end the unit (systemctl stop web@1.service)"
			write(t, "/etc/proxyd/web.toml", changed)
			check, checked := try(t, "runuser", "-u", "proxyd", "--", "proxyd", "check", "--name", "web", "--config", "/etc/proxyd/web.toml",
				"--state-dir", "/var/lib/proxyd/web", "--runtime-dir", "/run/proxyd/web")
			reload, reloaded := try(t, "proxyctl", "reload")
			for _, out := range []string{check, reload} {
				if checked != 1 || reloaded != 1 || !strings.Contains(out, refusal) || !strings.Contains(out, advice) {
					t.Errorf("%s: exit codes %d, %d\n%s", key, checked, reloaded, out)
				}
			}
			run(t, "systemctl", "restart", "--no-block", "proxyd@web.service")
			await(t, "proxyd to refuse", func() bool {
				return strings.Contains(run(t, "journalctl", "--no-pager", "-u", "proxyd@web", "-o", "cat", "-p", "err"), refusal) ||
					strings.Contains(run(t, "journalctl", "--no-pager", "-u", "proxyd@web", "-o", "cat"), "error: "+refusal)
			})
			write(t, "/etc/proxyd/web.toml", config)
			mustAnswer(t, web, "v1") // whoever waited is served once it is mended
			mustServeAgain(t)        // on the direct path nobody waits for it
			after := pids(t, "web@*")
			if after["web@1.service"] != before["web@1.service"] {
				t.Errorf("%s: the generations were %v and are %v", key, before, after)
			}
		}

		// As it is said there the driver can change, and back: exec's generations end
		// with proxyd.
		run(t, "systemctl", "stop", "proxyd@web.service", "web@1.service")
		run(t, slices.Concat([]string{"proxyctl", "install", "web", "--listen", webPort, "--driver", "exec"}, members())...)
		write(t, "/etc/proxyd/web.toml", "[backend]\ncommand = [\"/srv/web/{release}/web\"]\n")
		run(t, "systemctl", "start", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		if g := mustStatus(t, "web").current(); g.ID != 1 || g.Unit != "" {
			t.Errorf("current is %+v", g)
		}
		run(t, "proxyctl", "promote", "v2")
		write(t, "/etc/proxyd/web.toml", config)
		if out, _ := try(t, "proxyctl", "reload"); !strings.Contains(out, "backend.driver") || strings.Contains(out, "nobody looks after it") {
			t.Errorf("of a restart that would do, proxyd says\n%s", out)
		}
		run(t, slices.Concat([]string{"proxyctl", "install", "web", "--listen", webPort}, members())...)
		run(t, "systemctl", "restart", "proxyd@web.service")
		mustAnswer(t, web, "v2")
		mustTakeItsPath(t, "web")
		if g := mustStatus(t, "web").current(); g.ID != 2 || g.Unit != "web@2.service" {
			t.Errorf("current is %+v", g)
		}
	})
}
