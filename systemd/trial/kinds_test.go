package trial

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A program that binds by itself finds its address in the file for its unit, by
// either name of the unit.
func TestAProgramThatBindsItself(t *testing.T) {
	within(t, func(t *testing.T) {
		for _, unit := range []string{"web@{generation}.service", "web@{release}.service"} {
			t.Run(unit, func(t *testing.T) {
				install(t, "web", webPort, `[Service]
Type=notify
EnvironmentFile=/run/proxyd/web/generation-%i.env
ExecStart=`+here+` backend
DynamicUser=yes
`, "[backend]\ndriver = \"systemd\"\nunit = \""+unit+"\"\nsockets = \"address\"\nrelease = \"v1-rc.1\"\n", "--unit", unit)
				if out := run(t, "proxyd", "check", "--config", "/etc/proxyd/web.toml"); !strings.Contains(out, "is fine") {
					t.Errorf("check says %s", out)
				}
				run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
				mustAnswer(t, web, "v1-rc.1")
				l := startTraffic(t, web, 2, 2)
				run(t, "proxyctl", "promote", `v2 "$x\y`)
				mustAnswer(t, web, "v2") // what follows is looked at below
				if got, err := get(web, "/"); err != nil || got != `v2 "$x\y 2` {
					t.Errorf("the label became %q, %v", got, err)
				}
				run(t, "proxyctl", "revert")
				mustAnswer(t, web, "v1-rc.1")
				l.stop()
				l.check()
				run(t, "proxyctl", "retire")
				if left := run(t, "sh", "-c", "ls /run/proxyd/web/*.env | wc -l"); strings.TrimSpace(left) != "1" {
					t.Errorf("files for units: %s", left)
				}
			})
		}
	})
}

// A distribution's own unit for nginx, which knows nothing of proxyd: two of it,
// each with a configuration of its own, beside a site that is nobody's generation.
func TestAUnitThatKnowsNothingOfProxyd(t *testing.T) {
	within(t, func(t *testing.T) {
		for name, port := range map[string]int{"blue": 8101, "green": 8102, "red": 8103} {
			write(t, "/etc/nginx-"+name+".conf", fmt.Sprintf(`daemon off; pid /run/nginx-%[1]s/pid; error_log stderr; events {}
http { access_log off;
  client_body_temp_path /run/nginx-%[1]s/1; proxy_temp_path /run/nginx-%[1]s/2; fastcgi_temp_path /run/nginx-%[1]s/3; uwsgi_temp_path /run/nginx-%[1]s/4; scgi_temp_path /run/nginx-%[1]s/5;
  server { listen 127.0.0.1:%[2]d; location / { return 200 "v-%[1]s"; } } }
`, name, port))
			t.Cleanup(func() { os.Remove("/etc/nginx-" + name + ".conf") })
		}
		run(t, built+"/proxyctl", "install", "web", "--listen", webPort, "--unit", "nginx@blue.service", "--unit", "nginx@green.service")
		t.Cleanup(func() {
			run(t, "systemctl", "stop", "nginx@red.service")
			uninstall(t, "web")
			os.Remove("/etc/systemd/system/nginx@.service")
		})
		write(t, "/etc/systemd/system/nginx@.service", `[Service]
RuntimeDirectory=nginx-%i
ExecStart=nginx -e stderr -c /etc/nginx-%i.conf
KillSignal=SIGQUIT
`)
		write(t, "/etc/proxyd/web.toml", `[backend]
driver = "systemd"
unit   = "nginx@{fixed}.service"

[[backend.fixed]]
name    = "blue"
address = "127.0.0.1:8101"

[[backend.fixed]]
name    = "green"
address = "127.0.0.1:8102"
`)
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "start", "nginx@red.service")
		site := pids(t, "nginx@red.service")
		run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v-blue")
		if out, code := asProxyd(t, "systemctl", "--no-ask-password", "stop", "nginx@red.service"); code == 0 {
			t.Errorf("the user proxyd may stop a site of others\n%s", out)
		}
		l := startTraffic(t, web, 2, 2)
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v-green")
		if out, code := try(t, "proxyctl", "promote", "v3"); code != 5 || !strings.Contains(out, "blue by generation 1, green by generation 2") {
			t.Errorf("both are taken, and a third: exit code %d\n%s", code, out)
		}
		run(t, "systemctl", "restart", "proxyd@web.service")
		if out, code := try(t, "proxyctl", "promote", "v3"); code != 5 || !strings.Contains(out, "blue by generation 1, green by generation 2") {
			t.Errorf("after a restart of proxyd: exit code %d\n%s", code, out)
		}
		l.relayed.Store(true) // those that keep their connection lose it when that takes too long
		await(t, "blue to stand by", func() bool { return mustStatus(t, "web").generation(1).State == "standby" })
		run(t, "proxyctl", "retire")
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v-blue")
		l.stop()
		l.check()
		if out := run(t, "proxyctl", "uninstall", "web"); !strings.Contains(out, "has not started these, which run on: nginx@red.service\n") {
			t.Errorf("uninstall says %s", out)
		}
		if left := pids(t, "nginx@*"); !maps.Equal(left, site) {
			t.Errorf("the site of others was %v; after the uninstall of web these run: %v", site, left)
		}
		run(t, built+"/proxyctl", "install", "web") // to be uninstalled whole
	})
}

// The durable state is lost while proxyd is away: what runs tells which.
func TestTheStateIsLost(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		run(t, "systemctl", "stop", "proxyd@web.service")
		run(t, "sh", "-euc", "cd /var/lib/proxyd/web; ls; find . -type f ! -name 'history*' -delete; rm -f /run/proxyd/web/state*; ls . /run/proxyd/web")
		run(t, "systemctl", "start", "proxyd@web.service")
		mustAnswer(t, web, "v2")
		mustTakeItsPath(t, "web")
		if after := pids(t, "web@*"); !maps.Equal(before, after) {
			t.Errorf("the generations were %v and are %v", before, after)
		}
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		if now := mustStatus(t, "web").Current; now != 3 {
			t.Errorf("the next generation is %d", now)
		}
	})
}

// Generations that are proxyd's children, under systemd: they survive its crash,
// and end with its stop.
func TestChildrenUnderSystemd(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		releases(t, "web", "v1", "v2")
		run(t, slices.Concat([]string{built + "/proxyctl", "install", "web", "--listen", webPort, "--driver", "exec"}, members())...)
		t.Cleanup(func() { uninstall(t, "web") })
		write(t, "/srv/web/v2/web", "#!/bin/sh\nulimit -Sn >/tmp/web.limit\n: >/dev/shm/web\nexec "+here+" backend\n")
		t.Cleanup(func() { run(t, "rm", "-f", "/tmp/web.limit", "/dev/shm/web") })
		write(t, "/etc/proxyd/web.toml", "[backend]\ncommand = [\"/srv/web/{release}/web\"]\n")
		run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		run(t, "proxyctl", "promote", "v2")
		g := mustStatus(t, "web").current()
		mustBeAnOrdinaryProcess(t, g.PID)
		l := startTraffic(t, web, 3, 0)
		l.relayed.Store(over == relay)
		for range 3 {
			pid, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
			signal(t, pid, syscall.SIGKILL)
			await(t, "another proxyd", func() bool {
				now := property(t, "proxyd@web.service", "MainPID")
				return now != "0" && now != strconv.Itoa(pid)
			})
			mustAnswer(t, web, "v2") // on the direct path before proxyd answers
			await(t, "an answer of proxyd", func() bool { _, err := statusOf(t, "web"); return err == nil })
			if now := mustStatus(t, "web").current(); now.PID != g.PID {
				t.Errorf("process %d was current and %d is", g.PID, now.PID)
			}
			l.runFor(50)
		}
		l.stop()
		l.check()
		if _, err := os.Stat("/dev/shm/web"); err != nil {
			t.Errorf("the shared memory of a generation went with a crash of proxyd: %v", err)
		}
		run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
		if left, _ := try(t, "pgrep", "-f", "/srv/web|"+here+" backend"); left != "" {
			t.Errorf("processes are left: %s", left)
		}

		// With a user of its own, as README and the drop-in say.
		run(t, "rm", "-f", "/tmp/web.limit", "/dev/shm/web")
		write(t, "/etc/systemd/system/proxyd@web.service.d/user.conf", "[Service]\nUser=daemon\nGroup=daemon\n")
		t.Cleanup(func() { run(t, "rm", "/etc/systemd/system/proxyd@web.service.d/user.conf") })
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v2")
		run(t, "proxyctl", "promote", "v1")
		mustAnswer(t, web, "v1")
		if out := run(t, "ps", "-o", "user=", "-p", strconv.Itoa(mustStatus(t, "web").current().PID)); strings.TrimSpace(out) != "daemon" {
			t.Errorf("a generation runs as %s", out)
		}
	})
}

// mustBeAnOrdinaryProcess wants a child of proxyd to have nothing that is meant
// for proxyd alone.
func mustBeAnOrdinaryProcess(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	if score := run(t, "cat", dir+"oom_score_adj"); score != "0\n" {
		t.Errorf("its oom_score_adj is %s", score)
	}
	group := strings.TrimSpace(run(t, "id", "-g", "proxyd"))
	status := run(t, "cat", dir+"status")
	if !strings.Contains(status, "\nUmask:\t0022\n") || !strings.Contains(status, "\nGroups:\t"+group+" \n") {
		t.Errorf("its umask or its groups (not %s) are proxyd's:\n%s", group, status)
	}
	// The Go server raises its own soft limit, so that of the shell before it counts.
	if limit := run(t, "cat", "/tmp/web.limit"); limit != "1024\n" {
		t.Errorf("its soft limit of descriptors is %s", limit)
	}
}

// All of it by a user's own systemd, without a privilege.
func TestAUsersOwn(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		const user, address = "someone", "127.0.0.1:8443"
		if os.Getenv("TRIAL_USER") == "" {
			write(t, "/usr/lib/sysusers.d/someone.conf", "u someone 4711 - /home/someone /bin/sh\n")
			run(t, "systemd-sysusers", "someone.conf")
			run(t, "install", "-d", "-o", user, "-g", user, "/home/someone")
			releases(t, "mine", "v1", "v2")
			run(t, "systemctl", "start", "user@4711.service")
			t.Cleanup(func() { run(t, "systemctl", "stop", "user@4711.service") })
			cmd := exec.Command("setpriv", "--reuid="+user, "--regid="+user, "--init-groups", "--",
				os.Args[0], "-test.v", "-test.run=^TestAUsersOwn$/^"+over+"$")
			cmd.Dir = "/"
			cmd.Env = append(os.Environ(), "TRIAL_USER=1", "HOME=/home/someone", "XDG_RUNTIME_DIR=/run/user/4711",
				"PATH="+built+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("as the user: %v\n%s", err, out)
			}
			return
		}
		run(t, slices.Concat([]string{"proxyctl", "install", "--user", "mine", "--listen", address}, members())...)
		write(t, "/home/someone/.config/systemd/user/mine@.service",
			"[Service]\nType=notify\nExecStart="+built+"/proxyctl exec --service mine -- /srv/mine/{release}/web\n")
		write(t, "/home/someone/.config/proxyd/mine.toml", "[backend]\ndriver = \"systemd\"\nunit = \"mine@{generation}.service\"\n[stop]\ntimeout = \"5s\"\n")
		run(t, "systemctl", "--user", "daemon-reload")
		run(t, "systemctl", "--user", "enable", "--now", "proxyd@mine.socket", "proxyd@mine.service")
		mustAnswer(t, address, "v1")
		l := startTraffic(t, address, 3, 0)
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, address, "v2")
		g := mustStatus(t, "mine").current()
		mustTakeItsPath(t, "mine")
		if g.Unit != "mine@2.service" || g.Notice != "serves v2 2" {
			t.Errorf("status shows %+v", g)
		}
		run(t, "systemctl", "--user", "restart", "proxyd@mine.service")
		l.runFor(100)
		run(t, "systemctl", "--user", "reload", "proxyd@mine.service")
		if now := mustStatus(t, "mine").current(); now.PID != g.PID {
			t.Errorf("process %d was current and %d is", g.PID, now.PID)
		}
		run(t, "proxyctl", "revert")
		mustAnswer(t, address, "v1")
		l.stop()
		l.check()
		run(t, "proxyctl", "install", "--user", "kids", "--listen", "127.0.0.1:8444", "--driver", "exec")
		write(t, "/home/someone/.config/proxyd/kids.toml", "[backend]\ncommand = [\"/srv/mine/{release}/web\"]\n")
		run(t, "systemctl", "--user", "start", "proxyd@kids.socket", "proxyd@kids.service")
		mustAnswer(t, "127.0.0.1:8444", "v1")
		run(t, "proxyctl", "uninstall", "--user", "--purge", "kids")
		run(t, "proxyctl", "uninstall", "--user", "--purge", "mine")
		run(t, "rm", "/home/someone/.config/systemd/user/mine@.service")
		if left, _ := try(t, "find", "/home/someone", "/run/user/4711/proxyd", "-type", "f"); !strings.HasSuffix(left, "/run/user/4711/proxyd’: No such file or directory\n") || strings.Count(left, "\n") != 1 {
			t.Errorf("left over:\n%s", left)
		}
	})
}
