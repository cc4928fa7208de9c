package trial

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// half sends a request but for its end, so that its generation has it in flight
// until finish.
func half(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: web\r\n")
	return c
}

// finish ends what half began, and wants it answered by a release.
func finish(t *testing.T, c net.Conn, release string) {
	t.Helper()
	fmt.Fprint(c, "Connection: close\r\n\r\n")
	if all, err := io.ReadAll(c); err != nil || !strings.Contains(string(all), release+" ") {
		t.Errorf("who was in flight got %q, %v", all, err)
	}
}

// The socket unit listens at another address from now on, while generations run:
// clients of that wait for another run of the current release, and who is in flight
// is served to the end. It is done as the README has it, and as one might try it.
func TestTheSocketUnitGetsAnotherAddress(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		run(t, "proxyctl", "promote", "v2")
		mustTakeItsPath(t, "web")
		slow := half(t, web)
		for i, port := range []string{"445", "446"} {
			before := mustStatus(t, "web").current()
			run(t, "sed", "-i", "s/^ListenStream=.*/ListenStream="+port+"/", "/etc/systemd/system/proxyd@web.socket.d/listen.conf")
			run(t, "systemctl", "daemon-reload")
			if i == 0 {
				run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
				run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
			} else { // systemd refuses a socket whose service runs, and tries again as that stops
				try(t, "systemctl", "restart", "proxyd@web.socket", "proxyd@web.service")
				run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
			}
			mustAnswer(t, "127.0.0.1:"+port, "v2")
			mustTakeItsPath(t, "web")
			st := mustStatus(t, "web")
			if over == relay { // nothing of it is at the listener's address
				if st.Current != before.ID {
					t.Fatalf("generation %d is current, not %d", st.Current, before.ID)
				}
				continue
			}
			old := st.generation(before.ID)
			if st.Current == before.ID || i == 0 && (old.State != "draining" || old.InFlight != 1 || old.PID != before.PID || !strings.Contains(old.Reason, "where no listener is any more")) {
				t.Fatalf("generation %d is current; the one before: %+v", st.Current, old)
			}
		}
		if over == relay {
			return // proxyd's end ended what it relayed
		}
		finish(t, slow, "v2")
		await(t, "the generations of before to end", func() bool {
			st := mustStatus(t, "web")
			return st.generation(2).State == "stopped" && st.generation(3).State == "stopped"
		})
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, "127.0.0.1:446", "v3")
	})
}

// The same where a release cannot run twice at a time: what runs is ended first, and
// started again at the new address.
func TestAnotherAddressForUnitsOfReleases(t *testing.T) {
	within(t, func(t *testing.T) {
		over = direct
		defer func() { over = relay }()
		releases(t, "web", "v1")
		install(t, "web", webPort, goUnit("web"), strings.Replace(fmt.Sprintf(goConfig, "web"), "{generation}", "{release}", 1), "--unit", "web@{release}.service")
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		mustTakeItsPath(t, "web")
		before := mustStatus(t, "web").current()
		run(t, "sed", "-i", "s/^ListenStream=.*/ListenStream=445/", "/etc/systemd/system/proxyd@web.socket.d/listen.conf")
		run(t, "systemctl", "daemon-reload")
		run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service")
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, "127.0.0.1:445", "v1")
		mustTakeItsPath(t, "web")
		if now := mustStatus(t, "web").current(); now.ID != before.ID || now.Unit != before.Unit || now.PID == before.PID {
			t.Errorf("current was %+v, and is %+v", before, now)
		}
	})
}

// The socket unit is stopped and started under running generations, with the same
// address. No client is lost over it: they have their generations' sockets, and then
// wait for another run of the current release.
func TestTheSocketUnitIsRestartedUnderGenerations(t *testing.T) {
	within(t, func(t *testing.T) {
		over = direct
		defer func() { over = relay }()
		serveGo(t)
		slow := half(t, web)
		l := startTraffic(t, web, 4, 4)
		// First the socket: one that is to be stopped while its service does not run
		// drops who comes to any of its descriptors, and these are the generations' too.
		run(t, "systemctl", "stop", "proxyd@web.socket")
		l.runFor(100)
		run(t, "systemctl", "stop", "proxyd@web.service")
		l.runFor(100)
		run(t, "systemctl", "start", "proxyd@web.socket", "proxyd@web.service")
		l.runFor(100)
		mustAnswer(t, web, "v1")
		st := mustStatus(t, "web")
		if g := st.generation(1); st.Current != 2 || g.State != "draining" || !strings.Contains(g.Reason, "opened anew") {
			t.Fatalf("generation %d is current; the first: %+v", st.Current, g)
		}
		if path, why := pathOf(t, "web"); path != relay || !strings.Contains(why, "listen there as well") {
			t.Errorf("path %s: %s", path, why)
		}
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v2")
		l.runFor(100)
		l.stop()
		l.check()
		await(t, "the slow client to be the last", func() bool {
			g := mustStatus(t, "web").generation(1)
			return g.State == "draining" && g.InFlight == 1
		})
		finish(t, slow, "v1")
		await(t, "the generation of before to end", func() bool { return mustStatus(t, "web").generation(1).State == "stopped" })
		l = startTraffic(t, web, 4, 0)
		l.runFor(100)
		run(t, "systemctl", "restart", "proxyd@web.service")
		l.runFor(100)
		run(t, "proxyctl", "promote", "v3")
		mustAnswer(t, web, "v3")
		l.stop()
		l.check()
	})
}
