package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/seed8fae2174/proxyd/activation"
)

func TestHowAGenerationIsReached(t *testing.T) {
	two := "[[listener]]\nname = \"http\"\naddress = \":80\"\n[[listener]]\nname = \"admin\"\naddress = \":81\"\n"
	one := "[[listener]]\nname = \"http\"\naddress = \":80\"\n"
	for _, c := range []struct {
		name, text         string
		binds, http, admin bool
	}{
		{"handed over", two + "[backend]\ncommand = [\"web\"]\n", false, false, false},
		{"handed over, tcp", two + "[backend]\ncommand = [\"web\"]\nfamily = \"tcp\"\n", false, true, true},
		{"port", two + "[backend]\ncommand = [\"web\", \"{port}\", \"{port:admin}\"]\n", true, true, true},
		{"address", two + "[backend]\ncommand = [\"web\", \"--a={address:admin}\", \"{address}\"]\n", true, true, true},
		{"socket", two + "[backend]\ncommand = [\"web\", \"{socket}\", \"{socket:admin}\"]\n", true, false, false},
		{"one of each", two + "[backend]\ncommand = [\"web\", \"{socket}\", \"{port:admin}\"]\n", true, false, true},
		{"one of each, by name", two + "[backend]\ncommand = [\"web\", \"{socket:admin}\", \"{port:http}\"]\n", true, true, false},
		{"in the environment", one + "[backend]\ncommand = [\"web\"]\nenv = {A = \"{address}\"}\n", true, true, false},
		{"PORT", one + "[backend]\ncommand = [\"web\"]\nsockets = \"address\"\n", true, true, true},
		{"address and a socket", one + "[backend]\ncommand = [\"web\", \"{socket}\"]\nsockets = \"address\"\n", true, false, false},
		{"release alone", two + "[backend]\ncommand = [\"{release}/{generation}\", \"{{port}}\"]\n", false, false, false},
		{"nobody named the listeners", "[backend]\ncommand = [\"web\", \"{port}\", \"{socket:admin}\"]\n", true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := load(t, c.text, Flags{})
			if err != nil {
				t.Fatal(err)
			}
			if config.BindsItself() != c.binds || config.WantsTCP("http") != c.http || config.WantsTCP("admin") != c.admin {
				t.Fatalf("binds itself %v, http by TCP %v, admin by TCP %v, want %v %v %v", config.BindsItself(),
					config.WantsTCP("http"), config.WantsTCP("admin"), c.binds, c.http, c.admin)
			}
		})
	}
}

// What is said of the PROXY protocol holds for listeners by name, whoever opens
// them; for one that nobody has it is an error, as it would be lost.
func TestProxyProtocolByName(t *testing.T) {
	http := activation.Listener{Name: "http", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}}
	admin := activation.Listener{Name: "admin", Addr: &net.UnixAddr{Net: "unix", Name: "/run/admin"}}
	const rules = "[[listener]]\nname = \"http\"\nproxy_protocol = \"v1\"\n" +
		"[[listener]]\nname = \"admin\"\nproxy_protocol = \"v2\"\naccept_proxy = [\"unix:\", \"10.0.0.0/8\"]\n" +
		"[backend]\ncommand = [\"web\", \"{port:http}\", \"{port:admin}\"]\n"
	config, err := load(t, rules, Flags{})
	if err != nil {
		t.Fatal(err)
	}
	if err := config.CheckListeners([]activation.Listener{admin, http, http}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		version  int
		networks int
		unix     bool
	}{{2, 1, true}, {1, 0, false}, {1, 0, false}} {
		if version, networks, unix := config.Listeners[i].forProxy(); version != want.version || len(networks) != want.networks || unix != want.unix {
			t.Errorf("listener %d: version %d, networks %v, unix %v", i, version, networks, unix)
		}
	}
	if g := config.greetings(); string(g["http"]) != "PROXY UNKNOWN\r\n" || len(g["admin"]) != 16 {
		t.Errorf("greetings %q", g)
	}
	if config, err = load(t, rules, Flags{}); err != nil {
		t.Fatal(err)
	}
	want := `web.toml:4: listener[1]: there is no listener "admin" for what is said of the PROXY protocol; there are: http`
	if err := config.CheckListeners([]activation.Listener{http}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestListenersThatSystemdPassed(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
	http := activation.Listener{Name: "http", Addr: tcp}
	admin := activation.Listener{Name: "admin", Addr: &net.UnixAddr{Net: "unix", Name: "/run/admin"}}
	for _, c := range []struct {
		name, text string
		listeners  []activation.Listener
		want       string
	}{
		{"as named", "command = [\"web\", \"{port}\", \"{socket:admin}\"]", []activation.Listener{http, admin}, ""},
		{"several addresses of one", "command = [\"web\", \"{port}\"]", []activation.Listener{http, http}, ""},
		{"handed over", "command = [\"web\"]", []activation.Listener{http, admin}, ""},
		{"none", "command = [\"web\"]", nil,
			"web.toml: listener: there is none; start proxyd from a .socket unit, or give --listen ADDRESS or a [[listener]]"},
		{"a name that is not there", "command = [\"web\", \"{port}\", \"{socket:admin}\"]", []activation.Listener{http},
			"web.toml:2: backend.command[2]: {socket:admin} names no listener; there are: http"},
		{"one that is not told", "command = [\"web\", \"{port:http}\"]", []activation.Listener{http, admin},
			`web.toml:2: backend.command[1]: names {port:http}, so the program binds by itself, and is not told where for listener "admin"; name {port:admin}, {address:admin} or {socket:admin} as well`},
		{"direct", "command = [\"web\"]\npath = \"direct\"", []activation.Listener{http, admin},
			`web.toml:3: backend.path: "direct" needs TCP listeners, and "admin" is a unix socket; write path = "auto"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := load(t, "[backend]\n"+c.text+"\n", Flags{})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := config.CheckListeners(c.listeners); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Fatalf("got\n%s\nwant\n%s", got, c.want)
			}
			if got == "" && config.Listeners[0].Name != "http" {
				t.Fatalf("the listeners are %v", config.Listeners)
			}
		})
	}
}

// More sockets than can be taken are refused, with the number that can be.
func TestMoreListenersThanCanBeTaken(t *testing.T) {
	passed := func(addresses, members int) (list []activation.Listener) {
		for i := range addresses * members {
			list = append(list, activation.Listener{Name: "http", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1000 + i%addresses}})
		}
		return list
	}
	for _, c := range []struct {
		addresses, members int
		want               string
	}{
		{4, 16, ""},
		{4, 17, "systemd passes 68 sockets, and one proxyd takes 64; there are 4 addresses: write the ListenStream= line of each at most 16 times"},
		{65, 1, "systemd passes 65 sockets, and one proxyd takes 64; give some of the addresses to a proxyd of their own"},
		{22, 3, "systemd passes 66 sockets, and one proxyd takes 64; give some"},
	} {
		config, err := load(t, "[backend]\ncommand = [\"web\"]\n", Flags{})
		if err != nil {
			t.Fatal(err)
		}
		if err := config.CheckListeners(passed(c.addresses, c.members)); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d addresses with %d members: %v", c.addresses, c.members, err)
		}
	}
	many := ""
	for i := range 65 {
		many += fmt.Sprintf("[[listener]]\nname = \"l%d\"\naddress = \"127.0.0.1:%d\"\n", i, 1000+i)
	}
	want := "listener: there are 65, and one proxyd takes 64"
	if _, err := load(t, many+"[backend]\ncommand = [\"web\"]\n", Flags{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
