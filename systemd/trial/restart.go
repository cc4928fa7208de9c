package trial

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// StartedByAClientAndRestarted is point 3: a client starts proxyd and the first generation; what is restarted
// later is not noticed. Only a connection that is relayed, and that does not end by
// itself within stop.timeout, ends with a restart of proxyd.
func StartedByAClientAndRestarted(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		began := time.Now()
		releases(t, "web", "v1", "v2")
		install(t, "web", webPort, goUnit("web"), strings.Replace(fmt.Sprintf(goConfig, "web"), `"5s"`, `"1s"`, 1))
		run(t, "systemctl", "start", "proxyd@web.socket")
		if now := property(t, "proxyd@web.service", "ActiveState"); now != "inactive" {
			t.Fatalf("proxyd is %s before a client came", now)
		}
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		if len(before) != 2 {
			t.Fatalf("units: %v", before)
		}
		l := startTraffic(t, web, 6, 0)
		kept := keepAlive(t, web)
		for range 2 {
			for _, what := range [][]string{
				{"restart", "proxyd@web.service"}, {"daemon-reexec"}, {"daemon-reload"}, {"restart", "dbus.service"},
				{"restart", "proxyd@web.service"}, {"reload", "proxyd@web.service"},
			} {
				run(t, append([]string{"systemctl"}, what...)...)
				t.Log(what)
				if over == relay && slices.Equal(what, []string{"restart", "proxyd@web.service"}) {
					kept.mustHaveBeenCut(t, "a restart of proxyd")
					kept = keepAlive(t, web)
				}
				kept.mustGoOn(t, strings.Join(what, " "), 50)
				l.runFor(100)
				if after := pids(t, "web@*"); !maps.Equal(before, after) {
					t.Fatalf("systemctl %v: the generations were %v and are %v", what, before, after)
				}
			}
		}
		kept.finish()
		// It still hears of them, and can tell systemd what to do.
		run(t, "proxyctl", "revert")
		mustAnswer(t, web, "v1")
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v2")
		l.stop()
		l.check()
		mustHaveSocketsBack(t, began)
	})
}

// ARestartLetsClientsFinish: a restart lets the clients that are relayed finish, however many requests they
// still have, and whoever comes meanwhile waits for the next proxyd. On the direct
// path it waits for nobody, and nobody for it.
func ARestartLetsClientsFinish(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/proxyd/web.toml", strings.Replace(fmt.Sprintf(goConfig, "web"), `"5s"`, `"10m"`, 1))
		run(t, "systemctl", "reload", "proxyd@web.service")
		kept := keepAlive(t, web)
		if over == direct {
			run(t, "systemctl", "restart", "proxyd@web.service")
			kept.mustGoOn(t, "a restart of proxyd", 50)
			kept.finish()
			mustTakeItsPath(t, "web")
			return
		}
		before := property(t, "proxyd@web.service", "MainPID")
		run(t, "systemctl", "restart", "--no-block", "proxyd@web.service")
		await(t, "proxyd to be asked to end", func() bool { return property(t, "proxyd@web.service", "ActiveState") == "deactivating" })
		late := ask(t, web)
		kept.mustGoOn(t, "proxyd was asked to end", 500)
		if now := property(t, "proxyd@web.service", "MainPID"); now != before {
			t.Errorf("proxyd was process %s and is %s, and a client had not finished", before, now)
		}
		kept.finish()
		if kept.err != nil {
			t.Errorf("the client that was to finish ended with %v", kept.err)
		}
		if answer, err := io.ReadAll(late); err != nil || !strings.Contains(string(answer), "v1 1") {
			t.Errorf("one who came meanwhile got %q, %v", answer, err)
		}
		await(t, "the next proxyd", func() bool {
			now := property(t, "proxyd@web.service", "MainPID")
			return now != "0" && now != before
		})
	})
}

// mustHaveSocketsBack wants each proxyd since began to have had the generations'
// own sockets back from systemd.
func mustHaveSocketsBack(t *testing.T, began time.Time) {
	t.Helper()
	log := run(t, "journalctl", "-u", "proxyd@web", "--no-pager", "-o", "cat", fmt.Sprintf("--since=@%d", began.Unix()))
	if strings.Contains(log, "clients will not wait") || !strings.Contains(log, `"adopted"`) {
		t.Errorf("a generation's socket was not had back:\n%s", log)
	}
}

// TheProbationOutlivesARestart: a probation does not end with the proxyd that it began under.
func TheProbationOutlivesARestart(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		for _, how := range []string{"restart", "kill --signal=KILL"} {
			run(t, "proxyctl", "promote", "v2")
			bad := mustStatus(t, "web").current()
			l := startTraffic(t, web, 2, 0)
			l.relayed.Store(true)
			run(t, append(append([]string{"systemctl"}, strings.Fields(how)...), "proxyd@web.service")...)
			l.runFor(50)
			await(t, "the next proxyd", func() bool { st, err := statusOf(t, "web"); return err == nil && st.Current == bad.ID })
			signal(t, bad.PID, syscall.SIGKILL)
			await(t, "the revert", func() bool { return mustStatus(t, "web").Current != bad.ID })
			mustAnswer(t, web, "v1")
			l.runFor(50)
			l.stop()
			if now := mustStatus(t, "web"); now.generation(bad.ID).State != "failed" || now.current().Release != "v1" {
				t.Errorf("after a %s of proxyd: %+v", how, now)
			}
		}
	})
}

// CrashesInARow is point 4: proxyd is killed again and again. Whoever waits in the queue is
// served, and nobody is refused; only what was being relayed ends with it, and on
// the direct path nobody waits for it.
func CrashesInARow(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		began := time.Now()
		serveGo(t)
		withoutProbation(t)
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		l := startTraffic(t, web, 6, 0)
		l.relayed.Store(over == relay)
		crashes := 30
		if testing.Short() {
			crashes = 3
		}
		var pid int
		for range crashes {
			last := pid // systemd may not have seen yet that it was killed
			await(t, "proxyd to run", func() bool {
				pid, _ = strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
				return pid != 0 && pid != last && property(t, "proxyd@web.service", "ActiveState") == "active"
			})
			// Stopped it takes nobody, so these wait in the queue.
			signal(t, pid, syscall.SIGSTOP)
			await(t, "proxyd to stand still", func() bool { return stoppedProcess(t, pid) })
			var waiting []net.Conn
			for range 20 {
				waiting = append(waiting, ask(t, web))
			}
			signal(t, pid, syscall.SIGKILL)
			for _, c := range waiting {
				if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v2 2") {
					t.Fatalf("one who waited in the queue got %q, %v", answer, err)
				}
				c.Close()
			}
			l.runFor(50)
		}
		l.stop()
		l.check()
		t.Logf("%d requests, %d were being relayed at a crash", l.done.Load(), l.cut.Load())
		if after := pids(t, "web@*"); !maps.Equal(before, after) {
			t.Errorf("the generations were %v and are %v", before, after)
		}
		await(t, "proxyd to run once more", func() bool {
			return property(t, "proxyd@web.service", "ActiveState") == "active" && property(t, "proxyd@web.service", "NRestarts") == strconv.Itoa(crashes)
		})
		// The generations' own queues came back from systemd's store: one that is
		// started again has its old socket, and its clients waited for it.
		if n := property(t, "proxyd@web.service", "NFileDescriptorStore"); over == relay && n != "2" {
			t.Errorf("systemd keeps %s sockets", n)
		}
		mustHaveSocketsBack(t, began)
		died, _ := strconv.Atoi(before["web@2.service"])
		signal(t, died, syscall.SIGKILL)
		await(t, "generation 2 to run again", func() bool { g := mustStatus(t, "web").generation(2); return g.PID != 0 && g.PID != died })
		mustAnswer(t, web, "v2")
	})
}

// ask sends a request and does not read the answer.
func ask(t *testing.T, address string) net.Conn {
	t.Helper()
	return askFor(t, address, "/")
}

func askFor(t *testing.T, address, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	return c
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// ItEndsWithoutABus: the bus goes first when a machine goes down. proxyd ends all the same, also
// while it waits for what is left of a generation.
func ItEndsWithoutABus(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		write(t, "/etc/systemd/system/web@.service.d/slow.conf", "[Service]\nExecStopPost=sleep infinity\nTimeoutStopSec=infinity\n")
		t.Cleanup(func() { // whatever came of it, so that it can be uninstalled
			run(t, "rm", "-r", "/etc/systemd/system/web@.service.d")
			run(t, "systemctl", "daemon-reload")
			try(t, "systemctl", "kill", "-s", "KILL", "web@1.service", "web@2.service")
		})
		write(t, "/etc/systemd/system/proxyd@web.service.d/slow.conf", "[Service]\nTimeoutStopSec=10s\n")
		t.Cleanup(func() { run(t, "rm", "-r", "/etc/systemd/system/proxyd@web.service.d") })
		run(t, "systemctl", "daemon-reload")
		run(t, "proxyctl", "promote", "v2")
		await(t, "the previous generation to stand by", func() bool { return mustStatus(t, "web").generation(1).State == "standby" })
		before := mustStatus(t, "web").generation(1)
		signal(t, before.PID, syscall.SIGKILL)
		await(t, "it to be cleared up", func() bool { return property(t, "web@1.service", "SubState") == "stop-post" })
		run(t, "systemctl", "stop", "dbus.socket", "dbus.service")
		t.Cleanup(func() { run(t, "systemctl", "start", "dbus.socket") })
		began := time.Now()
		run(t, "systemctl", "stop", "proxyd@web.service")
		if log := run(t, "journalctl", "--no-pager", "-u", "proxyd@web", fmt.Sprintf("--since=@%d", began.Unix())); strings.Contains(log, "timed out") || strings.Contains(log, "Killing") {
			t.Errorf("systemd lost patience:\n%s", log)
		}
		run(t, "systemctl", "kill", "-s", "KILL", "web@1.service")
		run(t, "systemctl", "start", "dbus.socket")
		mustAnswer(t, web, "v2")
		run(t, "systemctl", "start", "proxyd@web.service") // on the direct path no client needs it
		await(t, "an answer of proxyd", func() bool { st, err := statusOf(t, "web"); return err == nil && st.State == "serving" })
		mustTakeItsPath(t, "web")
	})
}
