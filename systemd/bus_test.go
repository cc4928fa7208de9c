package systemd

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/seed8fae2174/proxyd/systemd/booted"
)

//go:embed units
var shipped embed.FS

// install puts a shipped file where its own first lines say.
func install(t *testing.T, name, path string) {
	t.Helper()
	text, err := shipped.ReadFile("units/" + name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// needInside is need for a file of a Debian package.
func needInside(t *testing.T, path, pkg string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		need(t, "there is no "+path+" (Debian package "+pkg+")")
	}
}

// As it is shipped: an unprivileged user in the hardened unit, the system bus,
// the polkit rule. proxyd itself is stood in for by this test binary.
func TestTheShippedUnitsDriveUnitsUnprivileged(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		needInside(t, "/usr/bin/dbus-daemon", "dbus-daemon")
		needInside(t, "/usr/lib/polkit-1/polkitd", "polkitd")
		for name, path := range map[string]string{
			"proxyd@.service":      "/etc/systemd/system/proxyd@.service",
			"proxyd@.socket":       "/etc/systemd/system/proxyd@.socket",
			"proxyd.sysusers.conf": "/usr/lib/sysusers.d/proxyd.conf",
			"proxyd.tmpfiles.conf": "/usr/lib/tmpfiles.d/proxyd.conf",
			"50-proxyd.rules":      "/etc/polkit-1/rules.d/50-proxyd.rules",
		} {
			install(t, name, path)
		}
		run(t, "systemd-sysusers", "proxyd.conf")
		run(t, "systemd-tmpfiles", "--create", "proxyd.conf")
		run(t, "cp", os.Args[0], "/usr/bin/proxyd")
		t.Cleanup(func() { os.Remove("/usr/bin/proxyd") })
		write(t, "/etc/systemd/system/proxyd@web.socket.d/listen.conf", "[Socket]\nListenStream=127.0.0.1:443\n")
		// What proxyd does not have: the daemon that the unit is for.
		write(t, "/etc/systemd/system/proxyd@web.service.d/test.conf", "[Service]\nEnvironment=PROXYD_STAND_IN=1\nRestart=no\n")
		unitFile(t, "web@.service", "Type=exec\nUser=daemon\nExecStart=sh -c 'echo starting %i; test %i != 2; exec sleep infinity'\n")
		run(t, "sed", "-i", "s/; test %i/; set -e; test %i/", "/etc/systemd/system/web@.service")
		unitFile(t, "other@.service", "Type=exec\nExecStart=sleep infinity\n")
		run(t, "systemctl", "start", "proxyd@web.socket")
		t.Cleanup(func() { run(t, "systemctl", "stop", "proxyd@web.socket", "proxyd@web.service") })

		// A client starts it on demand, and waits in the queue until it is served.
		conn, err := net.Dial("tcp", "127.0.0.1:443")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		report, err := io.ReadAll(conn)
		if err != nil || string(report) != "all is well\n" {
			t.Errorf("%v\n%s\n%s", err, report, run(t, "journalctl", "--no-pager", "-u", "proxyd@web"))
		}
		run(t, "systemctl", "is-active", "web@1.service")
	})
}

func init() { standIn = driveUnits }

// driveUnits is what runs as /usr/bin/proxyd in the shipped unit: it drives units,
// and tells its first client what went wrong.
func driveUnits() {
	var wrong []string
	check := func(ok bool, what string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(what, args...))
		}
	}
	check(os.Geteuid() != 0, "this is root")
	check(os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_FDNAMES") == "http", "the sockets are %s %s", os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
	for _, dir := range []string{os.Getenv("RUNTIME_DIRECTORY"), os.Getenv("STATE_DIRECTORY")} {
		err := os.WriteFile(dir+"/written", nil, 0o600)
		check(err == nil, "write to %q: %v", dir, err)
	}
	check(os.WriteFile("/etc/proxyd/written", nil, 0o600) != nil, "its configuration can be written")

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := hclog.New(&hclog.LoggerOptions{Output: os.Stderr})
	d, err := New(ctx, Config{Unit: "web@{generation}.service", Log: log, Poll: time.Hour})
	if err == nil {
		defer d.Close()
		u, err := d.Start(ctx, 1, "v1", func(Identity) error { return nil })
		check(err == nil, "start: %v", err)
		if err == nil {
			<-u.Ready()
			check(u.PID() > 1 && u.Owns(u.PID()) && !u.Owns(os.Getpid()), "it does not know its own process %d", u.PID())
			found, err := d.Found(ctx)
			check(err == nil && len(found) == 1, "found %v, %v", found, err)
		}
		bad, err := d.Start(ctx, 2, "v2", func(Identity) error { return nil })
		check(err == nil, "start: %v", err)
		if err == nil {
			<-bad.Done()
			check(bad.Exit() == "its process exited with status 1", "the reason is: %s", bad.Exit())
			for !strings.Contains(strings.Join(bad.LastLines(), "\n"), "starting 2") {
				if ctx.Err() != nil { // journald is a process of its own
					check(false, "the lines are: %q", bad.LastLines())
					break
				}
			}
			check(bad.Clear(ctx) == nil, "it cannot be cleared")
		}
		third, err := d.Start(ctx, 3, "v3", func(Identity) error { return nil })
		check(err == nil, "start: %v", err)
		if err == nil {
			check(third.Signal(0x0f) == nil, "it cannot be signalled")
			<-third.Done()
			check(third.Kill() == nil, "it cannot be killed")
			check(third.Clear(ctx) == nil, "it cannot be cleared")
		}
	}
	check(err == nil, "connect: %v", err)
	other, err := New(ctx, Config{Unit: "other@{generation}.service", Log: log})
	check(err == nil, "connect: %v", err)
	if err == nil {
		defer other.Close()
		_, err = other.Start(ctx, 1, "v1", func(Identity) error { return nil })
		check(errors.Is(err, ErrNotPermitted), "another template's unit: %v", err)
		err = other.kill(ctx, "dbus.service")
		check(errors.Is(err, ErrNotPermitted), "another unit killed: %v", err)
		for _, name := range []string{"web@1.socket", "web@.service", "web.service", "xweb@1.service"} {
			err = other.stop(ctx, name)
			check(err != nil, "stopped %s", name)
		}
	}
	if len(wrong) == 0 {
		wrong = append(wrong, "all is well")
	}

	notify, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, _ = notify.Write([]byte("READY=1"))
	}
	l, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err, wrong)
		os.Exit(1)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Fprintln(conn, strings.Join(wrong, "\n"))
		conn.Close()
	}
}

// The bus between goes away and comes back, and meanwhile a unit ends.
func TestTheDriverSurvivesARestartOfTheBus(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		needInside(t, "/usr/bin/dbus-daemon", "dbus-daemon")
		unitFile(t, "web@.service", "Type=exec\nExecStart=sleep infinity\n")
		config := Config{Unit: "web@{generation}.service", Poll: time.Hour}
		d, err := newDriver(t.Context(), config, func(ctx context.Context) (bus, error) {
			return open(ctx, systemBusAddress(), true)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		stays, ends := start(t, d, 1, "v1"), start(t, d, 2, "v2")
		run(t, "systemctl", "stop", "dbus.socket", "dbus.service")
		run(t, "systemctl", "kill", "--kill-who=main", "-s", "KILL", "web@2.service")
		run(t, "systemctl", "start", "dbus.socket")
		await(t, ends.Done(), "the end that nobody told")
		if got := ends.Exit(); got != "its process was ended by signal 9 (killed)" {
			t.Error(got)
		}
		if closed(stays.Done()) {
			t.Error("the other seems ended:", stays.Exit())
		}
		run(t, "systemctl", "daemon-reexec")
		start(t, d, 3, "v3")
		if err := stays.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if !closed(stays.Done()) {
			t.Error("it is cleared and not done")
		}
	})
}

// The user's own manager, with no right on the machine's.
func TestAUsersOwnSystemd(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		if os.Getenv("BOOTED_USER") == "" {
			needInside(t, "/usr/bin/dbus-daemon", "dbus-daemon")
			needInside(t, "/lib/systemd/system/user@.service", "systemd")
			write(t, "/usr/lib/sysusers.d/someone.conf", "u someone 4711 - /home/someone /bin/sh\n")
			run(t, "systemd-sysusers", "someone.conf")
			run(t, "install", "-d", "-o", "someone", "/home/someone", "/home/someone/.config")
			run(t, "systemctl", "start", "user@4711.service")
			t.Cleanup(func() { run(t, "systemctl", "stop", "user@4711.service") })
			cmd := exec.Command("setpriv", "--reuid=someone", "--regid=someone", "--init-groups", "--",
				os.Args[0], "-test.run=^TestAUsersOwnSystemd$")
			cmd.Env = append(os.Environ(), "BOOTED_USER=1", "HOME=/home/someone", "XDG_RUNTIME_DIR=/run/user/4711")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("as the user: %v\n%s", err, out)
			}
			return
		}
		dir := os.Getenv("XDG_RUNTIME_DIR") + "/systemd/user"
		// journald finds out whose a line is by the process, which must be there still
		// when the line is read.
		write(t, dir+"/web@.service", "[Service]\nType=exec\nExecStart=sh -c 'echo mine; test %i = 1 && exec sleep infinity; sleep 1; exit 5'\n")
		run(t, "systemctl", "--user", "daemon-reload")
		d, err := New(t.Context(), Config{Unit: "web@{generation}.service", User: true, Poll: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		u := start(t, d, 1, "v1")
		await(t, u.Ready(), "active")
		if !u.Owns(u.PID()) || u.Owns(os.Getpid()) {
			t.Error("it does not know its own process")
		}
		if err := u.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		bad := start(t, d, 2, "v2")
		await(t, bad.Done(), "its end")
		if got := bad.Exit(); got != "its process exited with status 5" {
			t.Error(got)
		}
		awaitLine(t, bad, "mine")
		if err := bad.Clear(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWhichUnitASignalIsOf(t *testing.T) {
	const changed, unit = "org.freedesktop.DBus.Properties.PropertiesChanged", "org.freedesktop.systemd1.Unit"
	for _, c := range []struct {
		signal dbus.Signal
		name   string
		ok     bool
	}{
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/web_40v1_2dx_5fy_2eservice", Body: []any{unit}}, "web@v1-x_y.service", true},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/a_4", Body: []any{unit}}, "a_4", true},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/a_zz", Body: []any{unit}}, "a_zz", true},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/job/7", Body: []any{unit}}, "", false},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/a", Body: []any{"org.freedesktop.systemd1.Service"}}, "", false},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/a", Body: []any{7}}, "", false},
		{dbus.Signal{Name: changed, Path: "/org/freedesktop/systemd1/unit/a"}, "", false},
		{dbus.Signal{Name: "org.freedesktop.systemd1.Manager.UnitNew", Path: "/org/freedesktop/systemd1/unit/a", Body: []any{unit}}, "", false},
	} {
		if name, ok := changedUnit(&c.signal); name != c.name || ok != c.ok {
			t.Errorf("%+v: got %q, %v, want %q, %v", c.signal, name, ok, c.name, c.ok)
		}
	}
}
