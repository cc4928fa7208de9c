package trial

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// forks is a program whose main process leaves its server behind when it ends, where
// its unit's KillMode= spares that.
func forks(t *testing.T, labels ...string) {
	t.Helper()
	releases(t, "web", labels...)
	for _, label := range labels {
		path := "/srv/web/" + label + "/web"
		write(t, path, "#!/bin/sh\n(export LISTEN_PID=$(sh -c 'echo $PPID'); exec "+here+" backend) &\nwait\n")
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// A generation has ended when none of its processes accepts any more, whatever its
// unit spares: each of those that come after it gets its place, and no client meets
// another release than the current one. check says what is to be mended.
func TestAUnitThatSparesProcesses(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		labels := []string{"v1", "v2", "v3", "v4", "v5", "v6", "v7"} // more than there are members
		forks(t, labels...)
		install(t, "web", webPort, strings.Replace(goUnit("web"), "Type=notify\n", "Type=notify\nNotifyAccess=all\nKillMode=process\n", 1),
			fmt.Sprintf(goConfig, "web")+"[promote]\nprobation = \"0s\"\n")
		if out := run(t, "proxyd", "check", "--config", "/etc/proxyd/web.toml"); !strings.Contains(out, "warning: KillMode=process in web@{generation}.service spares") {
			t.Errorf("check says %s", out)
		}
		run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		for i, label := range labels[1:] {
			run(t, "proxyctl", "promote", label)
			old := uint64(i + 1)
			await(t, "standby", func() bool { return mustStatus(t, "web").generation(old).State == "standby" })
			run(t, "proxyctl", "retire")
			if out, _ := try(t, "sh", "-c", fmt.Sprintf("cat $(find /sys/fs/cgroup -path '*/web@%d.service/cgroup.procs')", old)); strings.TrimSpace(out) != "" && !strings.Contains(out, "No such file") {
				t.Fatalf("generation %d is called ended, and has processes %q", old, out)
			}
			mustTakeItsPath(t, "web")
			for range 5 {
				mustAnswer(t, web, label)
			}
		}
		// A current one that loses its main process is started again alone.
		before := mustStatus(t, "web").current()
		run(t, "systemctl", "kill", "--kill-who=main", "-s", "KILL", before.Unit)
		await(t, "another main process", func() bool {
			now := mustStatus(t, "web")
			return now.State == "serving" && now.current().PID != before.PID && now.current().PID != 0
		})
		mustAnswer(t, web, "v7")
		mustTakeItsPath(t, "web")
	})
}

// A generation that is stopped has the time that its unit's own rules give it, for
// ExecStopPost= too; one that clients wait for has a part of it.
func TestAGenerationEndsByItsUnitsRules(t *testing.T) {
	within(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/proxyd/web.toml", strings.Replace(fmt.Sprintf(goConfig, "web"), "\"5s\"", "\"1m\"", 1))
		write(t, "/etc/systemd/system/web@.service.d/post.conf", "[Service]\nExecStopPost=sh -c 'sleep 6; echo flushed >/run/flushed/%i'\nRuntimeDirectory=flushed\nRuntimeDirectoryPreserve=yes\n")
		t.Cleanup(func() { os.RemoveAll("/run/flushed") })
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "reload", "proxyd@web.service")
		run(t, "proxyctl", "promote", "v2")
		await(t, "standby", func() bool { return mustStatus(t, "web").generation(1).State == "standby" })
		run(t, "proxyctl", "retire")
		if out, err := os.ReadFile("/run/flushed/1"); err != nil || string(out) != "flushed\n" {
			t.Errorf("the retired generation has written %q, %v", out, err)
		}
		withoutProbation(t)
		run(t, "systemctl", "kill", "--kill-who=main", "-s", "KILL", "web@2.service")
		mustAnswer(t, web, "v2")
		if _, err := os.Stat("/run/flushed/2"); err == nil {
			t.Error("clients had to wait for all that the unit of the current generation does at its end")
		}
	})
}
