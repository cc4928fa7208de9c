package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runProxyd runs proxyd to its end and gives its exit code and output.
func runProxyd(t *testing.T, dir string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // where it is not refused it serves
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "proxyd"), args...)
	cmd.WaitDelay = time.Second
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+filepath.Join(dir, "run"), "STATE_DIRECTORY="+filepath.Join(dir, "state"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

const goodConfig = "[[listener]]\naddress = \"127.0.0.1:0\"\n[backend]\ncommand = [\"/bin/cat\"]\n"

// Whatever is wrong is refused with its place and the reason, by check and by
// proxyd itself, and nothing is started or made.
func TestBadInputIsRefusedWithItsPlace(t *testing.T) {
	long := strings.Repeat("d", 100)
	for name, c := range map[string]struct {
		config string
		args   []string
		says   []string
	}{
		"unknown key":       {goodConfig + "colour = \"red\"\n", nil, []string{"web.toml:5", "backend.colour"}},
		"wrong type":        {goodConfig + "[drain]\nmax_draining = \"many\"\n", nil, []string{"web.toml:6", "drain.max_draining"}},
		"out of range":      {goodConfig + "[ready]\nsuccesses = -1\n", nil, []string{"web.toml:6", "ready.successes"}},
		"not TOML":          {goodConfig + "[ready\n", nil, []string{"web.toml:5"}},
		"name of a service": {goodConfig, []string{"--name", "../etc"}, []string{"--name", "../etc"}},
		"name of listener":  {strings.Replace(goodConfig, "address", "name = \"a b\"\naddress", 1), nil, []string{"web.toml:2", "listener", "a b"}},
		"control bytes":     {goodConfig, []string{"--release", "v1\x1b[31m"}, []string{"--release"}},
		"label with slash":  {goodConfig, []string{"--release", "../v1"}, []string{"--release"}},
		"long unix path":    {strings.Replace(goodConfig, "127.0.0.1:0", "unix:/"+long+long, 1), nil, []string{"web.toml:2", "107"}},
		"long directory":    {goodConfig, []string{"--runtime-dir", "/tmp/" + long}, []string{"107", "--runtime-dir"}},
		"missing command":   {strings.Replace(goodConfig, "/bin/cat", "/no/such/program", 1), nil, []string{"/no/such/program"}},
		"missing file":      {"", []string{"--config", "absent.toml"}, []string{"absent.toml"}},
		"empty name":        {goodConfig, []string{"--name", ""}, []string{"--name: is empty"}},
		"empty address":     {goodConfig, []string{"--listen", ""}, []string{"--listen"}},
		"empty release":     {goodConfig, []string{"--release", ""}, []string{"--release: is empty"}},
		"empty directory":   {goodConfig, []string{"--state-dir="}, []string{"--state-dir: is empty"}},
		"empty file":        {goodConfig, []string{"--config", ""}, []string{"--config: is empty"}},
		"label as option":   {goodConfig, []string{"--release", "-rf"}, []string{"--release", "an option"}},
		"label of a space":  {goodConfig, []string{"--release", " "}, []string{"--release", "a space"}},
		"word before --":    {goodConfig, []string{"chekc"}, []string{"chekc"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"check", ""} {
				if verb == "" && name == "missing command" {
					continue // a generation that cannot start is tried again: its program may come
				}
				dir := shortTempDir(t)
				if err := os.WriteFile(filepath.Join(dir, "web.toml"), []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
				args := append([]string{"--config", "web.toml"}, c.args...)
				if verb != "" {
					args = append([]string{verb}, args...)
				}
				code, out := runProxyd(t, dir, args...)
				if code != 1 {
					t.Errorf("%v: exit %d, want 1\n%s", args, code, out)
				}
				for _, s := range c.says {
					if !strings.Contains(out, s) {
						t.Errorf("%v does not say %q:\n%s", args, s, out)
					}
				}
				if strings.ContainsAny(out, "\x1b\x00") {
					t.Errorf("%v passes control bytes on: %q", args, out)
				}
				entries, err := os.ReadDir(dir)
				if err != nil || len(entries) != 1 {
					t.Errorf("%v left %v, %v behind", args, entries, err)
				}
			}
		})
	}
}

func TestCheckOfAGoodConfig(t *testing.T) {
	dir := shortTempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "web.toml"), []byte(goodConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := runProxyd(t, dir, "check", "--config", "web.toml"); code != 0 || !strings.Contains(out, "service web") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	full := exec.Command("/bin/sh", "-c", `exec "$0" check --config web.toml >/dev/full`, filepath.Join(bin, "proxyd"))
	full.Dir = dir
	full.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir, "STATE_DIRECTORY="+dir)
	if out, err := full.CombinedOutput(); err == nil || !strings.Contains(string(out), "write output") {
		t.Fatalf("with nowhere to say it: %v\n%s", err, out)
	}
	if code, out := runProxyd(t, dir, "check", "--name", "web", "--listen", "127.0.0.1:0", "--", "/bin/cat", "{port}"); code != 0 {
		t.Fatalf("without a file: exit %d\n%s", code, out)
	}
}

func TestASecondProxydOfAServiceIsRefused(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	for _, other := range []string{"--runtime-dir", "--state-dir"} { // one of both is enough
		cmd := exec.Command(d.cmd.Path, append(d.cmd.Args[1:], other, filepath.Join(d.dir, "other"))...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "another proxyd runs this service") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	d.mustAnswer("v1")
}

// checkOf runs `proxyd check` on a config in a directory of its own.
func checkOf(t *testing.T, config string) (dir string, code int, out string) {
	t.Helper()
	dir = shortTempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "web.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out = runProxyd(t, dir, "check", "--config", "web.toml")
	return dir, code, out
}

// What proxyd would be refused when it starts, and what a generation would lack,
// is told with its place.
func TestCheckTriesWhatProxydWillDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	places := shortTempDir(t)
	touch(t, filepath.Join(places, "file"))
	dead := filepath.Join(places, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	at := func(address string) string { return strings.Replace(goodConfig, "127.0.0.1:0", address, 1) }
	ready := goodConfig + "[ready]\ncheck = \"command\"\n"
	for name, c := range map[string]struct {
		config string
		says   []string // none: it is fine
	}{
		"an address in use":          {at(taken.Addr().String()), []string{"web.toml:2: listener[0].address", "already in use", ".socket"}},
		"an address of another host": {at("192.0.2.1:8080"), []string{"web.toml:2: listener[0].address", "cannot assign"}},
		"a directory that is not":    {at("unix:" + places + "/no/web.sock"), []string{"web.toml:2: listener[0].address", "no directory"}},
		"a file in the way":          {at("unix:" + places + "/file"), []string{"web.toml:2: listener[0].address", "not a socket"}},
		"a socket of the dead":       {at("unix:" + dead), nil},
		"a free path":                {at("unix:" + places + "/web.sock"), nil},
		"no program":                 {strings.Replace(goodConfig, "/bin/cat", "/no/{release}", 1), []string{"web.toml:4: backend.command[0]", "/no/v1"}},
		"no program in PATH":         {strings.Replace(goodConfig, "/bin/cat", "no-such-program", 1), []string{"web.toml:4: backend.command[0]", "no-such-program"}},
		"a PATH of its own":          {goodConfig + "env = {PATH = \"" + places + "\"}\n", nil},
		"not in a PATH of its own":   {strings.Replace(goodConfig, "/bin/cat", "cat", 1) + "env = {PATH = \"" + places + "\"}\n", []string{"web.toml:4: backend.command[0]", "PATH"}},
		"no directory":               {goodConfig + "dir = \"/no/{release}\"\n", []string{"web.toml:5: backend.dir", "/no/v1"}},
		"a file as directory":        {goodConfig + "dir = \"" + places + "/file\"\n", []string{"web.toml:5: backend.dir", "not a directory"}},
		"a program below directory":  {strings.Replace(goodConfig, "/bin/cat", "./cat", 1) + "dir = \"/bin\"\n", nil},
		"a directory by number":      {goodConfig + "dir = \"/no/{generation}\"\n", nil},
		"no readiness program":       {ready + "command = [\"/no/probe\", \"{socket}\"]\n", []string{"web.toml:7: ready.command[0]", "/no/probe"}},
		"a readiness program":        {ready + "command = [\"cat\", \"{socket}\"]\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir, code, out := checkOf(t, c.config)
			if want := min(len(c.says), 1); code != want {
				t.Errorf("exit %d, want %d\n%s", code, want, out)
			}
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("it does not say %q:\n%s", s, out)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("it left %v, %v behind", entries, err)
			}
		})
	}
	if _, err := os.Lstat(dead); err != nil {
		t.Errorf("the check removed the dead socket: %v", err)
	}
}

// A port that takes a right which proxyd has not.
func TestCheckOfAPrivilegedPort(t *testing.T) {
	need(t, "unshare")
	need(t, "setpriv")
	cmd := exec.Command("unshare", "--net", "setpriv", "--bounding-set", "-net_bind_service",
		filepath.Join(bin, "proxyd"), "check", "--name", "web", "--listen", "0.0.0.0:80", "--", "/bin/cat")
	dir := shortTempDir(t)
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir, "STATE_DIRECTORY="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--listen") || !strings.Contains(string(out), "permission denied") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Beside the proxyd of the service, whose addresses are its own; another
// service's are not.
func TestCheckBesideARunningProxyd(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	code, out := runProxyd(t, d.dir, "check", "--config", d.config)
	if code != 0 || !strings.Contains(out, "note: "+d.address+" is in use by the proxyd that runs this service") {
		t.Errorf("beside it: exit %d\n%s", code, out)
	}
	other := newDaemon(t, setup{command: self(t, "serve")})
	other.startServing()
	code, out = runProxyd(t, d.dir, "check", "--config", other.config)
	if code != 1 || !strings.Contains(out, other.address+": somebody listens there already") {
		t.Errorf("another's address: exit %d\n%s", code, out)
	}
	d.mustAnswer("v1")
	other.mustAnswer("v1")
	if onThePath() == pathRelay {
		return
	}
	// Killed, it leaves its group of sockets to its generation.
	d.kill9()
	code, out = runProxyd(t, d.dir, "check", "--config", d.config)
	if code != 0 || !strings.Contains(out, "note: "+d.address+" is held by generations") {
		t.Errorf("after it was killed: exit %d\n%s", code, out)
	}
	code, out = runProxyd(t, shortTempDir(t), "check", "--config", d.config)
	if code != 1 || !strings.Contains(out, d.address+": somebody listens there already") {
		t.Errorf("to another service: exit %d\n%s", code, out)
	}
	d.startServing()
	d.mustAnswer("v1")
}

func TestCheckTellsOfTheState(t *testing.T) {
	program := linked(t, "{release}")
	d := newDaemon(t, setup{command: []string{program, "backend", "serve"}})
	d.startServing()
	d.stop()
	// What counts is the release that would be started, which the state knows.
	text, err := os.ReadFile(d.config)
	if err == nil {
		err = os.WriteFile(d.config, []byte(strings.Replace(string(text), `release = "v1"`, `release = "v0"`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, out := runProxyd(t, d.dir, "check", "--config", d.config); code != 0 || strings.Contains(out, "warning") {
		t.Errorf("exit %d\n%s", code, out)
	}
	damaged := filepath.Join(d.dir, "state", "state.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := runProxyd(t, d.dir, "check", "--config", d.config); code != 0 || !strings.Contains(out, "warning: ") || !strings.Contains(out, damaged) {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestCheckWithoutAListener(t *testing.T) {
	if _, code, out := checkOf(t, "[backend]\ncommand = [\"/bin/cat\"]\n"); code != 0 || !strings.Contains(out, "note: no listener is configured") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"[::]:80", ":80", true}, {"0.0.0.0:80", ":80", true}, {"127.0.0.1:80", ":80", false}, {":81", ":80", false},
		{"[::1]:80", "[::1]:80", true}, {"[fe80::1%1]:80", "[fe80::1%2]:80", false}, {"unix:/a", "unix:/a", true},
		{"unix:/a", "unix:/b", false}, {"unix:/a", ":80", false}, {":80", "unix:/a", false}, {"", "", false},
	} {
		if got := sameAddress(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}
