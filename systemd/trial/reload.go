package trial

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Reload: a reload applies the config or keeps the old one and fails with the reason.
func Reload(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		pid := property(t, "proxyd@web.service", "MainPID")
		this := "_SYSTEMD_INVOCATION_ID=" + property(t, "proxyd@web.service", "InvocationID")
		config := fmt.Sprintf(goConfig, "web")

		write(t, "/etc/proxyd/web.toml", config+"\n[ready]\ndeadline = \"1s\"\n")
		run(t, "systemctl", "reload", "proxyd@web.service")
		hang := "[Service]\nExecStart=\nExecStart=proxyctl exec --service web -- " + here + " backend hang\n"
		write(t, "/etc/systemd/system/web@.service.d/hang.conf", hang)
		run(t, "systemctl", "daemon-reload")
		if out, code := try(t, "proxyctl", "promote", "v2"); code != 5 || !strings.Contains(out, "not ready within 1s") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		if err := os.RemoveAll("/etc/systemd/system/web@.service.d"); err != nil {
			t.Fatal(err)
		}
		run(t, "systemctl", "daemon-reload")

		for _, c := range []struct{ text, reason string }{
			{config + "\n[redy]\n", "redy: unknown key; did you mean ready?"},
			{strings.Replace(config, "web@", "other@", 1), "backend.unit cannot change while proxyd runs"},
			{strings.Replace(config, "[backend]\n", "[backend]\npath = \"relay\"\n", 1), "backend.path cannot change while proxyd runs"},
			{config + "\n[[listener]]\nname = \"http\"\nproxy_protocol = \"v2\"\n", "[[listener]] cannot change while proxyd runs"},
			{config + "\n[limits]\nmax_connections = 3\n", "[limits] cannot change while proxyd runs"},
			{"backend = [", "web.toml"},
		} {
			write(t, "/etc/proxyd/web.toml", c.text)
			if out, code := try(t, "systemctl", "reload", "proxyd@web.service"); code == 0 {
				t.Errorf("a reload with %q succeeded\n%s", c.text, out)
			}
			if out, code := try(t, "proxyctl", "reload"); code != 1 || !strings.Contains(out, c.reason) {
				t.Errorf("exit code %d\n%s", code, out)
			}
			if log := run(t, "journalctl", "--no-pager", this); !strings.Contains(log, c.reason) {
				t.Errorf("the journal does not tell %q:\n%s", c.reason, log)
			}
			if state := property(t, "proxyd@web.service", "ActiveState"); state != "active" {
				t.Errorf("proxyd is %s", state)
			}
			mustAnswer(t, web, "v1")
		}

		// SIGHUP asks for the same; its outcome is in the log, with its priority.
		errors := func() int {
			return strings.Count(run(t, "journalctl", "--no-pager", "-o", "cat", "-p", "err", this, "PROXYD_BY=SIGHUP"), "cannot reload")
		}
		number, _ := strconv.Atoi(pid)
		signal(t, number, syscall.SIGHUP)
		await(t, "the reload to be refused", func() bool { return errors() == 1 })
		write(t, "/etc/proxyd/web.toml", config)
		signal(t, number, syscall.SIGHUP)
		await(t, "the reload", func() bool {
			return strings.Contains(run(t, "journalctl", "--no-pager", "-o", "cat", this, "PROXYD_BY=SIGHUP"), "reloaded")
		})
		if now := property(t, "proxyd@web.service", "MainPID"); now != pid {
			t.Errorf("proxyd was process %s and is %s", pid, now)
		}
	})
}

// WhatSystemdIsTold: what proxyd tells systemd and the journal of itself.
func WhatSystemdIsTold(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		await(t, "the status", func() bool {
			return property(t, "proxyd@web.service", "StatusText") == "serving: generation 1 (v1), 0 in flight"
		})
		download := askFor(t, web, "/drip?n=100000")
		await(t, "the download to begin", func() bool { return mustStatus(t, "web").current().InFlight == 1 })
		defer download.Close()
		run(t, "proxyctl", "promote", "v2")
		await(t, "the status with what drains", func() bool {
			return property(t, "proxyd@web.service", "StatusText") == "serving: generation 2 (v2), 0 in flight; 1 draining, 1 in flight"
		})
		this := "_SYSTEMD_INVOCATION_ID=" + property(t, "proxyd@web.service", "InvocationID")
		for query, want := range map[string]string{
			"PROXYD_GENERATION=2":                        `"@message":"promoted"`,
			"PROXYD_RELEASE=v2":                          `"generation":2`,
			"PROXYD_MESSAGE=promoted PROXYD_SERVICE=web": `"release":"v2"`,
			"PRIORITY=6 SYSLOG_IDENTIFIER=proxyd":        `"@level":"info"`,
			"PRIORITY=3":                                 "",
			"_TRANSPORT=stdout":                          "", // all of it came with fields
		} {
			out := run(t, append([]string{"journalctl", "--quiet", "--no-pager", "-o", "cat", this}, strings.Fields(query)...)...)
			if want == "" && out != "" || !strings.Contains(out, want) {
				t.Errorf("journalctl %s:\n%s", query, out)
			}
		}
	})
}

// Watchdog: the watchdog ends a proxyd that stands still, and systemd starts the next.
func Watchdog(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/systemd/system/proxyd@web.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n")
		t.Cleanup(func() { run(t, "rm", "-r", "/etc/systemd/system/proxyd@web.service.d") })
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "restart", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		before := property(t, "proxyd@web.service", "WatchdogTimestampMonotonic")
		await(t, "a ping", func() bool { return property(t, "proxyd@web.service", "WatchdogTimestampMonotonic") != before })
		pid, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
		this := "INVOCATION_ID=" + property(t, "proxyd@web.service", "InvocationID") // what systemd says of it
		signal(t, pid, syscall.SIGSTOP)
		await(t, "another proxyd", func() bool {
			now := property(t, "proxyd@web.service", "MainPID")
			return now != "0" && now != strconv.Itoa(pid)
		})
		mustAnswer(t, web, "v1")
		if log := run(t, "journalctl", "--no-pager", this); !strings.Contains(log, "Watchdog timeout") {
			t.Errorf("it was not the watchdog:\n%s", log)
		}
	})
}
