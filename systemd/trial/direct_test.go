package trial

import (
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// membersOf repeats the line of a port in the .socket unit of web.
func membersOf(t *testing.T, port string, n int) {
	t.Helper()
	write(t, "/etc/systemd/system/proxyd@web.socket.d/listen.conf",
		"[Socket]\nReusePort=yes\n"+strings.Repeat("ListenStream="+port+"\n", n))
	run(t, "systemctl", "daemon-reload")
}

// What only the direct path can do: restarts and crashes of proxyd that no
// connection notices, also one that lives through all of them, and clients in the
// queue of a generation that is killed.
func TestTheDirectPath(t *testing.T) {
	within(t, func(t *testing.T) {
		over = direct
		defer func() { over = relay }()
		serveGo(t)
		run(t, "proxyctl", "promote", "v2")
		before := pids(t, "web@*")
		slow, err := net.Dial("tcp", web) // it lives through all that follows
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: web\r\n")
		l := startTraffic(t, web, 4, 4)
		for i := range 2 {
			switch i {
			case 0:
				pid, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
				signal(t, pid, syscall.SIGKILL)
				await(t, "another proxyd", func() bool {
					now, _ := strconv.Atoi(property(t, "proxyd@web.service", "MainPID"))
					return now != 0 && now != pid && property(t, "proxyd@web.service", "ActiveState") == "active"
				})
			case 1:
				run(t, "systemctl", "restart", "proxyd@web.service")
			}
			l.runFor(100)
			if after := pids(t, "web@*"); !maps.Equal(before, after) {
				t.Fatalf("the generations were %v and are %v", before, after)
			}
		}
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		l.runFor(100)
		l.stop()
		l.check()
		await(t, "the slow client to be the last", func() bool {
			st := mustStatus(t, "web")
			return st.generation(st.Previous).InFlight == 1
		})
		fmt.Fprint(slow, "Connection: close\r\n\r\n")
		if all, err := io.ReadAll(slow); err != nil || !strings.Contains(string(all), "v2") {
			t.Errorf("the slow client got %q, %v", all, err)
		}
		// A generation is killed with clients in its queue. In probation it is given
		// up, and they are relayed to the one that is reverted to; else they wait
		// until it runs again.
		for _, then := range []string{"given up", "started again"} {
			current := mustStatus(t, "web").current()
			signal(t, current.PID, syscall.SIGSTOP)
			await(t, "the generation to stand still", func() bool { return stoppedProcess(t, current.PID) })
			var waiting []net.Conn
			for range 50 {
				waiting = append(waiting, ask(t, web))
			}
			signal(t, current.PID, syscall.SIGKILL)
			for _, c := range waiting {
				if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v2") {
					t.Fatalf("%s: one who waited in the queue got %q, %v", then, answer, err)
				}
				c.Close()
			}
			if now := mustStatus(t, "web").Current; (now == current.ID) != (then == "started again") {
				t.Fatalf("%s: generation %d is current, it was %d", then, now, current.ID)
			}
		}
	})
}

// A unit with an unequal or a useless number of lines is an error that says
// which line to add; an ordinary unit is served by the relay, and status says
// why; with the config insisting it is an error.
func TestTheLinesOfAGroup(t *testing.T) {
	within(t, func(t *testing.T) {
		releases(t, "web", "v1", "v2")
		install(t, "web", webPort, goUnit("web"), fmt.Sprintf(goConfig, "web"))
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		if path, why := pathOf(t, "web"); path != "relay" || !strings.Contains(why, "ReusePort=yes") {
			t.Errorf("an ordinary unit: path %s, %q", path, why)
		}
		// One after the other: a proxyd that fails is started again and again, and such a
		// start, queued meanwhile, would cancel the stop of the socket that it wants.
		stop := func() {
			t.Helper()
			run(t, "systemctl", "stop", "proxyd@web.service")
			run(t, "systemctl", "stop", "proxyd@web.socket")
		}
		says := func(n int, config, want string) {
			t.Helper()
			stop()
			write(t, "/etc/proxyd/web.toml", config)
			membersOf(t, webPort, n)
			try(t, "systemctl", "start", "proxyd@web.socket")
			try(t, "systemctl", "start", "--no-block", "proxyd@web.service")
			await(t, want, func() bool {
				return strings.Contains(run(t, "journalctl", "-u", "proxyd@web", "--no-pager"), want)
			})
		}
		config := fmt.Sprintf(goConfig, "web") + "[promote]\nprobation = \"0s\"\n"
		says(2, config, "add the line ListenStream=[::]:443 to it 11 more times")
		insists := strings.Replace(config, "[stop]", "path = \"direct\"\n[stop]", 1)
		says(1, insists, "add the line ListenStream=[::]:443 to it 12 more times")
		stop()
		write(t, "/etc/proxyd/web.toml", insists)
		membersOf(t, webPort, 3)
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		if path, why := pathOf(t, "web"); path != "relay" || why != "it was started on the relay" {
			t.Errorf("a generation of before: path %s, %q", path, why)
		}
		// Three lines: hold, and two generations. The next is refused, and where the
		// config leaves it the choice, the relay's.
		run(t, "proxyctl", "promote", "v1")
		slow := askFor(t, web, "/drip?n=250")
		run(t, "proxyctl", "promote", "v2")
		if path, why := pathOf(t, "web"); path != "direct" {
			t.Errorf("the second generation: path %s, %q", path, why)
		}
		out, code := try(t, "proxyctl", "promote", "v1")
		if code != 5 || !strings.Contains(out, "no free member") {
			t.Errorf("a third generation: exit code %d, %s", code, out)
		}
		mustAnswer(t, web, "v2")
		write(t, "/etc/proxyd/web.toml", config)
		run(t, "systemctl", "restart", "proxyd@web.service")
		run(t, "proxyctl", "promote", "v1")
		mustAnswer(t, web, "v1")
		if path, why := pathOf(t, "web"); path != "relay" || why != "no free member; moves by itself" {
			t.Errorf("the third generation: path %s, %q", path, why)
		}
		before := mustStatus(t, "web")
		slow.Close()
		await(t, "a move to the direct path", func() bool { path, _ := pathOf(t, "web"); return path == "direct" })
		mustAnswer(t, web, "v1")
		if after := mustStatus(t, "web"); after.Current == before.Current || after.Previous != before.Previous {
			t.Errorf("generation %d is current, %d the previous one; they were %d and %d", after.Current, after.Previous, before.Current, before.Previous)
		}
	})
}
