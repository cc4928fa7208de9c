package trial

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Where the services listen: a privileged port, that proxyd's user could not
// bind.
const (
	webPort = "443"
	web     = "127.0.0.1:443"
)

// goUnit is the template unit of the Go server, as a person would write it for
// the service name. Its releases are in /srv/NAME/RELEASE.
func goUnit(name string) string {
	return `[Unit]
Description=` + name + `, generation %i

[Service]
Type=notify
ExecStart=proxyctl exec --service ` + name + ` -- /srv/` + name + `/{release}/web
DynamicUser=yes
SupplementaryGroups=proxyd
ProtectSystem=strict
`
}

const goConfig = `[backend]
driver = "systemd"
unit   = "%s@{generation}.service"

[stop]
timeout = "5s"
`

// releases puts the Go server at the places of releases.
func releases(t *testing.T, name string, labels ...string) {
	t.Helper()
	for _, label := range labels {
		path := "/srv/" + name + "/" + label + "/web"
		write(t, path, "#!/bin/sh\nexec "+here+" backend\n")
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.RemoveAll("/srv/" + name) })
}

// lines is how often the .socket unit repeats its ListenStream= line: one to
// hold, one to spare, and one for each generation that may run at a time.
const lines = 7

// Over which path the services of a test are installed.
const (
	relay  = "relay"
	direct = "direct"
)

var over = relay

// overBothPaths runs body inside the machine, over each path: what holds for
// users does not depend on it. A body says what does by over.
func overBothPaths(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	within(t, func(t *testing.T) {
		for _, over = range []string{relay, direct} {
			t.Run(over, body)
		}
		over = relay
	})
}

// members are the flags of install for the path.
func members() []string {
	if over == direct {
		return []string{"--members", strconv.Itoa(lines)}
	}
	return nil
}

// pathOf gives the path that status shows of a service, and why it is the relay.
func pathOf(t *testing.T, name string) (path, reason string) {
	t.Helper()
	st := mustStatus(t, name)
	if len(st.Listeners) != 1 {
		t.Fatalf("status shows %d listeners", len(st.Listeners))
	}
	return st.Listeners[0].Path, st.Listeners[0].Reason
}

// mustTakeItsPath wants the current generation of a service on the path that it
// was installed for.
func mustTakeItsPath(t *testing.T, name string) {
	t.Helper()
	if path, why := pathOf(t, name); path != over {
		t.Fatalf("path %s (%s), not %s", path, why, over)
	}
}

// install installs a service as a person does, with a template unit and a
// config, and takes it away at the end of the test.
func install(t *testing.T, name, listen, unit, config string, flags ...string) {
	t.Helper()
	run(t, slices.Concat([]string{built + "/proxyctl", "install", name, "--listen", listen}, members(), flags)...)
	write(t, "/etc/systemd/system/"+name+"@.service", unit)
	write(t, "/etc/proxyd/"+name+".toml", config)
	run(t, "systemctl", "daemon-reload")
	t.Cleanup(func() { uninstall(t, name) })
}

func uninstall(t *testing.T, name string) {
	t.Helper()
	run(t, "proxyctl", "uninstall", "--purge", name)
	for _, pattern := range []string{"/etc/systemd/system/" + name + "@.service", "/etc/systemd/system/" + name + "@.service.d"} {
		if err := os.RemoveAll(pattern); err != nil {
			t.Error(err)
		}
	}
	run(t, "systemctl", "daemon-reload")
	try(t, "systemctl", "reset-failed")
}

// serveGo installs the Go server as service web and starts it.
func serveGo(t *testing.T) {
	t.Helper()
	releases(t, "web", "v1", "v2", "v3")
	install(t, "web", webPort, goUnit("web"), fmt.Sprintf(goConfig, "web"))
	run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
	mustAnswer(t, web, "v1")
	mustTakeItsPath(t, "web")
}

// withoutProbation has a generation of service web that dies started again, also
// just after it was promoted.
func withoutProbation(t *testing.T) {
	t.Helper()
	write(t, "/etc/proxyd/web.toml", fmt.Sprintf(goConfig, "web")+"\n[promote]\nprobation = \"0s\"\n")
	run(t, "proxyctl", "-s", "web", "reload")
}

// property gives one property of a unit.
func property(t *testing.T, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "systemctl", "show", "-P", name, unit))
}
