package trial

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// blocks makes releases of a program that counts on accept(2) to wait: whatever else
// it gives ends it, as with most.
func blocks(t *testing.T, labels ...string) {
	t.Helper()
	releases(t, "web", labels...)
	for _, label := range labels {
		path := "/srv/web/" + label + "/web"
		write(t, path, `#!/usr/bin/perl
$SIG{PIPE} = 'IGNORE';
open(S, "+<&=3") or die "open: $!";
while (1) {
  accept(C, S) or die "accept: $!\n";
  my $b = "";
  sysread(C, $b, 4096);
  syswrite(C, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n$ENV{PROXYD_RELEASE} $ENV{PROXYD_GENERATION}\n");
  close C;
}
`)
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// systemd sets O_NONBLOCK on the members each time that it starts proxyd. No release
// is reverted and no generation ends for that, neither a current one, in its probation
// and under load, nor one that is staged.
func TestAProgramThatWaitsInAccept(t *testing.T) {
	within(t, func(t *testing.T) {
		over = direct
		defer func() { over = relay }()
		blocks(t, "v1", "v2", "v3")
		releases(t, "web", "go")
		unit := strings.Replace(goUnit("web"), "Type=notify", "Type=exec", 1)
		install(t, "web", webPort, unit, fmt.Sprintf(goConfig, "web"))
		run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		mustBe := func(path, reason string) {
			t.Helper()
			if p, why := pathOf(t, "web"); p != path || why != reason {
				t.Fatalf("path %s (%s), not %s (%s)", p, why, path, reason)
			}
		}
		mustBe("relay", "blocking accept")
		run(t, "proxyctl", "promote", "v2")
		run(t, "proxyctl", "stage", "v3")
		starts := func() int { return strings.Count(run(t, "proxyctl", "history"), " starting ") }
		if n := starts(); n != 4 {
			t.Errorf("three generations were started %d times: the first one alone is started once more", n)
		}
		before := pids(t, "web@*")
		l := startTraffic(t, web, 2, 0)
		l.relayed.Store(true)
		for i := range 4 {
			pid, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
			if i%2 == 0 {
				signal(t, pid, syscall.SIGKILL)
				await(t, "another proxyd", func() bool {
					now, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
					_, err := statusOf(t, "web")
					return now != 0 && now != pid && err == nil
				})
			} else {
				run(t, "systemctl", "restart", "proxyd@web.service")
			}
			l.runFor(50)
			for name, pid := range pids(t, "web@*") {
				if before[name] != pid {
					t.Fatalf("%s was process %s and is %s", name, before[name], pid)
				}
			}
			mustAnswer(t, web, "v2")
			mustBe("relay", "blocking accept")
		}
		l.stop()
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		if history := run(t, "proxyctl", "history"); strings.Contains(history, " died ") || strings.Contains(history, " reverted ") {
			t.Errorf("something died:\n%s", history)
		}
		// A release that waits by epoll is moved, once it is off probation.
		run(t, "proxyctl", "promote", "go")
		mustAnswer(t, web, "go")
		mustBe("relay", "blocking accept of the release before; moves by itself")
		run(t, "systemctl", "restart", "proxyd@web.service")
		mustBe("relay", "blocking accept of the release before; moves by itself")
		write(t, "/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "web")+"\n[promote]\nprobation = \"0s\"\n")
		run(t, "systemctl", "reload", "proxyd@web.service")
		run(t, "proxyctl", "promote", "go")
		await(t, "a move to the direct path", func() bool { p, _ := pathOf(t, "web"); return p == "direct" })
		mustAnswer(t, web, "go")
		run(t, "proxyctl", "promote", "go")
		mustBe("direct", "")
		unit = mustStatus(t, "web").current().Unit
		if n := strings.Count(run(t, "journalctl", "-u", unit, "-o", "cat", "--no-pager"), "Started "); n != 1 {
			t.Errorf("%s, of a program that was direct before, was started %d times", unit, n)
		}
		// Where the config insists, it stays there.
		write(t, "/etc/proxyd/web.toml", strings.Replace(fmt.Sprintf(goConfig, "web"), "[stop]", "path = \"direct\"\n[stop]", 1))
		run(t, "systemctl", "restart", "proxyd@web.service")
		run(t, "proxyctl", "promote", "v1")
		mustAnswer(t, web, "v1")
		mustBe("direct", "")
		if log := run(t, "journalctl", "-u", "proxyd@web", "--no-pager"); !slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
			return strings.Contains(line, "it counts on accept(2) to wait")
		}) {
			t.Error("nothing was said of it")
		}
	})
}
