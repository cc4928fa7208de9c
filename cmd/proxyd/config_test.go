package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// contract is the file of the design's contract, every key with its default.
const contract = `
[[listener]]
name    = "http"
address = "127.0.0.1:8080"

[backend]
driver  = "exec"
command = ["/srv/web/{release}/web", "--port", "{port}"]
sockets = "activation"
path    = "auto"
release = "v1"

[ready]
check     = "auto"
path      = "/healthz"
interval  = "1s"
timeout   = "5s"
successes = 1
deadline  = "30s"

[promote]
probation = "30s"

[drain]
deadline      = "10m"
keep_previous = "10m"
max_draining  = 8

[stop]
signal  = "SIGTERM"
timeout = "30s"

[limits]
max_connections = 0
connect_timeout = "5s"
idle_timeout    = "0s"
half_close_timeout = "0s"
`

// load is LoadConfig of a file web.toml that holds text.
func load(t *testing.T, text string, flags Flags) (*Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("web.toml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Configure("web.toml", flags)
}

func TestConfigDefaultsAreTheContract(t *testing.T) {
	short, err := load(t, "[backend]\ncommand = [\"/srv/web/{release}/web\", \"--port\", \"{port}\"]\n[[listener]]\nname=\"http\"\naddress=\"127.0.0.1:8080\"", Flags{})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := load(t, contract, Flags{})
	if err != nil {
		t.Fatal(err)
	}
	forgetPlaces(whole)
	forgetPlaces(short)
	if !reflect.DeepEqual(whole, short) {
		t.Fatalf("the contract's file gives\n%+v\nand the defaults are\n%+v", whole, short)
	}
	if whole.Name != "web" || whole.Drain.KeepPrevious.D() != 10*time.Minute || whole.Stop.signal() != 15 ||
		!reflect.DeepEqual(whole.Listeners, []ListenerConfig{{Name: "http", Address: "127.0.0.1:8080"}}) {
		t.Fatalf("read %+v", whole)
	}
}

// forgetPlaces leaves what two files that say the same have in common.
func forgetPlaces(c *Config) {
	c.places, c.rules = places{}, nil
	for i := range c.Listeners {
		c.Listeners[i].key = ""
	}
}

func TestConfigReadsEveryKey(t *testing.T) {
	c, err := load(t, `
[[listener]]
address = "unix:/run/x.sock"
[[listener]]
name = "admin"
address = "[::1]:0"
proxy_protocol = "v2"
accept_proxy = ["10.0.0.0/8", "2001:db8::7", "unix:"]
[backend]
command = ["web"]
family = "tcp"
sockets = "activation"
path = "relay"
release = "r7"
dir = "/srv/{release}"
env = { TZ = "UTC", "X" = "{generation}" }
non_blocking = true
[ready]
check = "command"
command = ["check", "{address:admin}", "{address}"]
path = "/x"
interval = "2s"
timeout = "3s"
successes = 4
deadline = "5s"
[promote]
probation = "6s"
[drain]
deadline = "7s"
keep_previous = "8s"
max_draining = 9
[stop]
signal = "SIGQUIT"
timeout = "10s"
[limits]
max_connections = 11
connect_timeout = "12s"
idle_timeout = "13s"
half_close_timeout = "14s"
`, Flags{})
	if err != nil {
		t.Fatal(err)
	}
	s := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	want := &Config{
		Name: "web",
		Listeners: []ListenerConfig{{Name: "main", Address: "unix:/run/x.sock"},
			{Name: "admin", Address: "[::1]:0", ProxyProtocol: "v2", AcceptProxy: []string{"10.0.0.0/8", "2001:db8::7", "unix:"}}},
		Backend: BackendConfig{Driver: "exec", Command: []string{"web"}, Scope: "auto", Sockets: "activation", Family: "tcp",
			Path: "relay", Release: "r7", Dir: "/srv/{release}", Env: map[string]string{"TZ": "UTC", "X": "{generation}"}, NonBlocking: true},
		Ready: ReadyConfig{Check: "command", Path: "/x", Command: []string{"check", "{address:admin}", "{address}"},
			Interval: s(2), Timeout: s(3), Successes: 4, Deadline: s(5)},
		Promote: PromoteConfig{s(6)},
		Drain:   DrainConfig{s(7), s(8), 9},
		Stop:    StopConfig{"SIGQUIT", s(10)},
		Limits:  LimitsConfig{11, s(12), s(13), s(14)},
	}
	rules := c.rules
	forgetPlaces(c)
	if !reflect.DeepEqual(c, want) {
		t.Fatalf("got\n%+v, want\n%+v", c, want)
	}
	if len(rules) != 1 || rules[0].Name != "admin" {
		t.Fatalf("rules %+v", rules)
	}
	if _, err := load(t, "[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}.service\"\n", Flags{}); err != nil {
		t.Fatal(err)
	}
}

func TestConfigTakesTheEndsOfItsRanges(t *testing.T) {
	for _, text := range []string{
		"[ready]\nsuccesses = 1000\ninterval = \"1ns\"\n[drain]\nmax_draining = 1000\n[limits]\nmax_connections = 1_073_741_824\n",
		"[ready]\nsuccesses = 1\n[drain]\nmax_draining = 0\ndeadline = \"0\"\nkeep_previous = \"0s\"\n[promote]\nprobation = \"0s\"\n[stop]\ntimeout = \"0s\"\n",
		"[[listener]]\naddress = \"unix:/" + strings.Repeat("x", 106) + "\"\n",
		"[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n",
	} {
		if _, err := load(t, text+"[backend]\ncommand = [\"web\"]\nrelease = \""+strings.Repeat("r", 128)+"\"\n", Flags{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestConfigCannotBeRead(t *testing.T) {
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v", err)
	}
	if _, err := LoadConfig(t.TempDir()); err == nil {
		t.Fatal("a directory was read")
	}
	if _, err := load(t, strings.Repeat("# long\n", maxConfig/6), Flags{}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Fatalf("a file too long: %v", err)
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	c, err := load(t, contract, Flags{Name: "shop", Listen: []string{":80", "unix:/s"}, Release: "v9", Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "shop" || c.Backend.Release != "v9" || c.Backend.Command[0] != "x" ||
		!reflect.DeepEqual(c.Listeners, []ListenerConfig{{Name: "main", Address: ":80"}, {Name: "main", Address: "unix:/s"}}) {
		t.Fatalf("got %+v", c)
	}
	c, err = Configure("", Flags{Listen: []string{"127.0.0.1:0"}, Command: []string{"web", "{port}"}})
	if err != nil || c.Name != "main" || c.Backend.Release != "v1" || !c.BindsItself() || !c.WantsTCP("main") {
		t.Fatalf("without a file: %+v, %v", c, err)
	}
}

func TestFlagErrorsNameTheFlag(t *testing.T) {
	long := "unix:/" + strings.Repeat("x", 107)
	for _, c := range []struct {
		name  string
		flags Flags
		want  []string
	}{
		{"nothing", Flags{}, []string{`backend.command: missing; write command = ["PROGRAM", "ARGUMENT"], or give it after --`}},
		{"all", Flags{Name: "a/b", Listen: []string{"80", long}, Release: "a\x1b[1m", Command: []string{"web", "{prot}"}}, []string{
			`--listen: parse address "80": not an address to listen on: write :80`,
			`--listen: parse address "` + long + `": the path is 108 bytes, longer than the 107 bytes of a unix socket address`,
			`--name: bad name "a/b": a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit`,
			`--release: release label "a\x1b[1m": byte 2 is not printable (U+001B)`,
			`COMMAND[1]: unknown placeholder {prot}; known here: {release}, {generation}, {port}, {address}, {socket}; {{ and }} stand for braces`,
		}},
		{"twice", Flags{Listen: []string{":80", "[::]:81", ":80"}, Command: []string{"web"}}, []string{
			`--listen: ":80" is listened on twice`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Configure("", c.flags)
			if err == nil || err.Error() != strings.Join(c.want, "\n") {
				t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(c.want, "\n"))
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(contract))
	for _, c := range badConfigs {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("web.toml", text)
		if err != nil {
			var list ConfigErrors
			if !errors.As(err, &list) || len(list) == 0 {
				t.Fatalf("not ConfigErrors: %v", err)
			}
			return
		}
		lines := strings.Count(string(text), "\n") + 1
		for _, again := range []error{c.Validate(), c.Validate()} {
			var list ConfigErrors
			if again != nil && !errors.As(again, &list) {
				t.Fatalf("not ConfigErrors: %v", again)
			}
			for _, e := range list {
				if e.Line < 0 || e.Line > lines || e.Message == "" {
					t.Fatalf("bad place in %+v", e)
				}
			}
		}
		c.CheckListeners(nil)
		c.WantsTCP("main")
	})
}
