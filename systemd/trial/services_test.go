package trial

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Point 7: two services on one host.
func TestTwoServices(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		const api = "127.0.0.1:444"
		releases(t, "api", "v1", "v2")
		install(t, "api", "444", goUnit("api"), fmt.Sprintf(goConfig, "api"))
		run(t, "systemctl", "enable", "--now", "proxyd@api.socket", "proxyd@api.service")
		mustAnswer(t, api, "v1")
		mustTakeItsPath(t, "api")

		both := run(t, "proxyctl", "status")
		if !strings.Contains(both, "web: serving") || !strings.Contains(both, "api: serving") {
			t.Errorf("status without -s shows\n%s", both)
		}
		if lines := strings.Split(strings.TrimSpace(run(t, "proxyctl", "status", "-o", "json")), "\n"); len(lines) != 2 {
			t.Errorf("as JSON it has %d documents", len(lines))
		}
		if out, code := try(t, "proxyctl", "promote", "v2"); code != 2 || !strings.Contains(out, "api, web") {
			t.Errorf("a promote of nobody knows which: exit code %d\n%s", code, out)
		}

		// A generation of one is handed no socket of the other's, whatever it says.
		write(t, "/etc/systemd/system/api@.service.d/other.conf", "[Service]\nExecStart=\nExecStart=proxyctl exec --service web -- "+here+" backend\n")
		run(t, "systemctl", "daemon-reload")
		out, code := try(t, "proxyctl", "-s", "api", "promote", "v2")
		if code != 5 || !strings.Contains(out, `is in no unit that proxyd started for service web (it is in "api@2.service")`) {
			t.Errorf("exec for the other's sockets: exit code %d\n%s", code, out)
		}
		run(t, "rm", "-r", "/etc/systemd/system/api@.service.d")
		run(t, "systemctl", "daemon-reload")
		mustAnswer(t, api, "v1")

		// What happens to one does not concern the other.
		before := pids(t, "api@*")
		l := startTraffic(t, api, 2, 2)
		run(t, "proxyctl", "-s", "web", "promote", "v2")
		mustAnswer(t, web, "v2")
		run(t, "systemctl", "kill", "-s", "KILL", "proxyd@web.service", "web@2.service")
		mustAnswer(t, web, "v1") // it was on probation
		run(t, "proxyctl", "uninstall", "web")
		if after := pids(t, "api@*"); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("the other's generations were %v and are %v", before, after)
		}
		run(t, "proxyctl", "promote", "v2") // it is the only one now
		mustAnswer(t, api, "v2")
		l.stop()
		l.check()
		run(t, built+"/proxyctl", "install", "web", "--listen", webPort) // to be uninstalled whole
	})
}

// Point 6: proxyd's user may do with the template's units what it needs, and
// with no other unit anything.
func TestOnlyTheTemplatesUnits(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/systemd/system/other@.service", "[Service]\nExecStart=sleep infinity\n")
		write(t, "/etc/systemd/system/web-admin@.service", "[Service]\nExecStart=sleep infinity\n")
		run(t, "systemctl", "daemon-reload")
		t.Cleanup(func() {
			run(t, "rm", "/etc/systemd/system/other@.service", "/etc/systemd/system/web-admin@.service")
		})
		pid := property(t, "proxyd@web.service", "MainPID")
		status := run(t, "cat", "/proc/"+pid+"/status")
		for _, want := range []string{"CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(status, "\n"+want) || strings.Contains(status, "Uid:\t0") {
				t.Errorf("proxyd is privileged: no %q in\n%s", want, status)
			}
		}
		as := func(args ...string) (string, int) {
			return asProxyd(t, append([]string{"systemctl", "--no-ask-password"}, args...)...)
		}
		for _, args := range [][]string{
			{"start", "other@1.service"}, {"start", "web-admin@1.service"}, {"stop", "proxyd@web.socket"}, {"start", "web@1-2.service"},
			{"start", "web@v1.service"}, {"start", "web@01.service"}, {"restart", "web@1.service"}, {"reload", "web@1.service"}, {"daemon-reload"}, {"enable", "other@1.service"},
			{"set-property", "web@1.service", "MemoryMax=1G"}, {"mask", "web@1.service"}, {"poweroff"},
		} {
			if out, code := as(args...); code == 0 || !strings.Contains(out, "denied") && !strings.Contains(out, "uthentication") {
				t.Errorf("systemctl %v was allowed: exit code %d\n%s", args, code, out)
			}
		}
		for _, unit := range []string{"web@78.service", "run-as-root.service"} {
			out, code := asProxyd(t, "systemd-run", "--no-ask-password", "--unit="+unit, "touch", "/run/run-as-root")
			if _, err := os.Stat("/run/run-as-root"); code == 0 || err == nil || !strings.Contains(out, "Access denied") {
				t.Errorf("systemd-run as %s: exit code %d, %v\n%s", unit, code, err, out)
			}
		}
		if out, code := as("start", "web@77.service"); strings.Contains(out, "denied") || strings.Contains(out, "uthentication") {
			t.Errorf("the template's own unit: exit code %d\n%s", code, out)
		}
		run(t, "proxyctl", "promote", "v2") // and it is no generation of proxyd's
		mustAnswer(t, web, "v2")

		// No process but a generation's is handed sockets.
		out, code := try(t, "proxyctl", "-s", "web", "exec", "--", "true")
		if code != 4 || !strings.Contains(out, "is in no unit that proxyd started") {
			t.Errorf("exec from elsewhere: exit code %d\n%s", code, out)
		}
	})
}

// What a generation finds in its environment, and that it is the unit's main
// process.
func TestWhatAGenerationFinds(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		env, err := get(web, "/env")
		if err != nil {
			t.Fatal(err)
		}
		g := mustStatus(t, "web").current()
		for _, want := range []string{
			"PROXYD_SERVICE=web\n", "PROXYD_GENERATION=1", "PROXYD_RELEASE=v1\n", "NOTIFY_SOCKET=/run/systemd/notify\n",
			fmt.Sprintf("\npid %d", g.PID),
		} {
			if !strings.Contains(env, want) {
				t.Errorf("no %q in its environment:\n%s", want, env)
			}
		}
		if g.Unit != "web@1.service" || g.Notice != "serves v1 1" || property(t, g.Unit, "MainPID") != fmt.Sprint(g.PID) {
			t.Errorf("status shows %+v", g)
		}
		signal(t, g.PID, syscall.SIGTERM)
		await(t, "it to be started again", func() bool { n := mustStatus(t, "web").current(); return n.PID != 0 && n.PID != g.PID })
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
	})
}

// The service alone is started with its socket, and enabled with it.
func TestTheServiceBringsItsSocket(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		releases(t, "web", "v1")
		install(t, "web", webPort, goUnit("web"), fmt.Sprintf(goConfig, "web"))
		run(t, "systemctl", "start", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		run(t, "systemctl", "enable", "proxyd@web.service")
		for _, unit := range []string{"proxyd@web.socket", "proxyd@web.service"} {
			if now := run(t, "systemctl", "is-active", unit) + run(t, "systemctl", "is-enabled", unit); now != "active\nenabled\n" {
				t.Errorf("%s is %q", unit, now)
			}
		}
	})
}

// However often it is stopped and started, the socket listens: systemd's own limit
// is five times in ten seconds.
func TestTheSocketIsStartedOften(t *testing.T) {
	within(t, func(t *testing.T) {
		releases(t, "web", "v1")
		install(t, "web", webPort, goUnit("web"), fmt.Sprintf(goConfig, "web"))
		run(t, "systemctl", "enable", "proxyd@web.socket") // else systemd forgets it with each stop
		for range 7 {
			run(t, "systemctl", "start", "proxyd@web.socket")
			run(t, "systemctl", "stop", "proxyd@web.socket")
		}
		run(t, "systemctl", "start", "proxyd@web.socket")
		mustAnswer(t, web, "v1")
	})
}

// A socket unit of one's own, with several addresses, in place of the shipped one.
// It is not touched by a service that is enabled and started by itself, nor is
// anything that fails, and uninstall stops it: else a client would start proxyd
// again.
func TestASocketOfYourOwn(t *testing.T) {
	within(t, func(t *testing.T) {
		releases(t, "web", "v1", "v2")
		const path = "/run/front.sock"
		write(t, "/etc/systemd/system/front.socket", `[Unit]
StartLimitIntervalSec=0
[Socket]
Service=proxyd@web.service
FileDescriptorName=front
ListenStream=443
ListenStream=`+path+`
RemoveOnStop=yes
TriggerLimitIntervalSec=0
`)
		if out := run(t, built+"/proxyctl", "install", "web"); strings.Contains(out, "proxyd@web.socket") ||
			!strings.Contains(out, "start your socket unit, and then systemctl enable --now proxyd@web.service\n") {
			t.Errorf("install says\n%s", out)
		}
		t.Cleanup(func() {
			uninstall(t, "web")
			if state := property(t, "front.socket", "ActiveState"); state != "inactive" {
				t.Errorf("after the uninstall it is %s", state)
			}
			if left := run(t, "find", "/etc/systemd", "-name", "proxyd*"); left != "" {
				t.Errorf("after the uninstall there is %s", left)
			}
			run(t, "rm", "/etc/systemd/system/front.socket")
		})
		write(t, "/etc/systemd/system/web@.service", goUnit("web"))
		write(t, "/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "web"))
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "start", "front.socket")
		mustAnswer(t, web, "v1")
		run(t, "systemctl", "stop", "proxyd@web.service")
		run(t, "systemctl", "enable", "--now", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		run(t, "systemctl", "restart", "proxyd@web.service")
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v2")
		if failed := run(t, "systemctl", "list-units", "--failed", "--plain", "--no-legend"); strings.Contains(failed, "proxyd") || strings.Contains(failed, "front") {
			t.Errorf("these failed: %s", failed)
		}
		if out := run(t, "curl", "-sS", "--unix-socket", path, "http://web/"); !strings.HasPrefix(out, "v2 ") {
			t.Errorf("over the unix socket %q answers", out)
		}
	})
}

// An install with other addresses says how they are applied, and as it says they
// are.
func TestInstallWithOtherAddresses(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		again := func() string {
			return run(t, slices.Concat([]string{built + "/proxyctl", "install", "web", "--listen", "445"}, members())...)
		}
		_, said, _ := strings.Cut(again(), "listens where it did before")
		mustAnswer(t, web, "v1")
		steps := strings.Split(said, "`")
		if len(steps) != 5 {
			t.Fatalf("install says %q of the socket", said)
		}
		run(t, "sh", "-euc", steps[1])
		run(t, "sh", "-euc", steps[3])
		mustAnswer(t, "127.0.0.1:445", "v1")
		mustTakeItsPath(t, "web")
		if _, err := get(web, "/"); err == nil {
			t.Error("the address of before answers")
		}
		if out := again(); strings.Contains(out, "before") {
			t.Errorf("with the same addresses install says\n%s", out)
		}
		if out := run(t, built+"/proxyctl", "install", "web"); !strings.Contains(out, "enable --now proxyd@web.socket proxyd@web.service\n") {
			t.Errorf("with the addresses of before install says\n%s", out)
		}
	})
}

// What an earlier install of a service opened does not stay open, and a template
// is one service's alone.
func TestInstallOnceMore(t *testing.T) {
	within(t, func(t *testing.T) {
		before := files(t)
		run(t, built+"/proxyctl", "install", "web", "--driver", "exec", "--listen", webPort)
		run(t, built+"/proxyctl", "install", "web")
		if out, code := try(t, "ls", "/etc/systemd/system/proxyd@web.service.d/exec.conf"); code == 0 {
			t.Errorf("the exec driver's sandbox stays: %s", out)
		}
		if out, code := try(t, built+"/proxyctl", "install", "api", "--template", "web"); code != 1 || !strings.Contains(out, "are service web's") {
			t.Errorf("a second service of one template: exit code %d\n%s", code, out)
		}
		run(t, "systemctl", "start", "proxyd@web.socket")
		run(t, "proxyctl", "uninstall", "--purge", "web")
		if state := property(t, "proxyd@web.socket", "ActiveState"); state != "inactive" {
			t.Errorf("its socket is %s", state)
		}
		for path := range files(t) {
			if !before[path] {
				t.Errorf("left over: %s", path)
			}
		}
	})
}

// Half an installation is taken away as well as a whole one.
func TestUninstallOfHalfAnInstallation(t *testing.T) {
	within(t, func(t *testing.T) {
		before := files(t)
		run(t, built+"/proxyctl", "install", "web", "--listen", webPort)
		run(t, "rm", "/etc/systemd/system/proxyd@.service", "/etc/systemd/system/proxyd@.socket", "/etc/tmpfiles.d/proxyd.conf")
		run(t, "userdel", "proxyd")
		run(t, "proxyctl", "uninstall", "--purge", "web")
		for path := range files(t) {
			if !before[path] {
				t.Errorf("left over: %s", path)
			}
		}
		if out, code := try(t, built+"/proxyctl", "uninstall", "web"); code != 1 || !strings.Contains(out, "was not installed") {
			t.Errorf("once more: exit code %d\n%s", code, out)
		}
	})
}

// What uninstall leaves is purged later, the user with it where install has made it;
// one that was there before stays. A purge that fails half-way is asked for again.
func TestPurgeAfterAnUninstall(t *testing.T) {
	within(t, func(t *testing.T) {
		before := files(t)
		hasUser := func() bool { return strings.Contains(run(t, "cat", "/etc/passwd"), "proxyd:") }
		cycle := func(name string) {
			t.Helper()
			run(t, built+"/proxyctl", "install", name, "--driver", "exec", "--listen", webPort)
			write(t, "/etc/proxyd/"+name+".toml", "[backend]\ncommand = [\""+here+"\", \"backend\"]\n")
			run(t, "systemctl", "start", "proxyd@"+name+".socket", "proxyd@"+name+".service")
			run(t, built+"/proxyctl", "uninstall", name)
			for _, left := range []string{"/etc/proxyd/" + name + ".toml", "/var/lib/proxyd/" + name} {
				run(t, "ls", left)
			}
		}
		nothingIsLeft := func() {
			t.Helper()
			for path := range files(t) {
				if !before[path] {
					t.Errorf("left over: %s", path)
				}
			}
		}
		cycle("web")
		cycle("api")
		run(t, built+"/proxyctl", "uninstall", "--purge", "web")
		if !hasUser() {
			t.Fatal("the user is gone, and has files")
		}
		busy := exec.Command("setpriv", "--reuid=proxyd", "--regid=proxyd", "--clear-groups", "sleep", "infinity")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "a process of the user", func() bool { _, code := try(t, "pgrep", "-u", "proxyd"); return code == 0 })
		if out, code := try(t, built+"/proxyctl", "uninstall", "--purge", "api"); code != 1 || !strings.Contains(out, "userdel") {
			t.Errorf("while the user has a process: exit code %d\n%s", code, out)
		}
		if err := busy.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = busy.Wait()
		run(t, built+"/proxyctl", "uninstall", "--purge", "api")
		nothingIsLeft()
		if hasUser() {
			t.Error("the user is left")
		}

		run(t, "useradd", "--system", "proxyd")
		t.Cleanup(func() { run(t, "userdel", "proxyd") })
		before = files(t)
		cycle("web")
		run(t, built+"/proxyctl", "uninstall", "--purge", "web")
		nothingIsLeft()
		if !hasUser() {
			t.Error("the user of before is gone")
		}
	})
}
