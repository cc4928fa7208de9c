package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runProxyd runs proxyd to its end and gives its exit code and output.
func runProxyd(t *testing.T, dir string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "proxyd"), args...)
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
	if code, out := runProxyd(t, dir, "check", "--name", "web", "--listen", "127.0.0.1:0", "--", "/bin/cat", "{port}"); code != 0 {
		t.Fatalf("without a file: exit %d\n%s", code, out)
	}
}

func TestASecondProxydOfAServiceIsRefused(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve")})
	d.startServing()
	cmd := exec.Command(d.cmd.Path, d.cmd.Args[1:]...)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another proxyd runs this service") {
		t.Fatalf("%v\n%s", err, out)
	}
	d.mustAnswer("v1")
}
