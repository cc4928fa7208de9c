package trial

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// Point 1: the README's own steps, as they stand, from the built programs to the
// uninstall, which leaves nothing.
func TestTheStepsOfTheREADME(t *testing.T) {
	const steps = "/booted/steps"
	if !booted.Inside() {
		text, err := os.ReadFile("../../README.md")
		if err != nil {
			t.Fatal(err)
		}
		if err := machine(t).WriteFile(steps, string(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	overBothPaths(t, func(t *testing.T) {
		text, err := os.ReadFile(steps)
		if err != nil {
			t.Fatal(err)
		}
		_, section, _ := strings.Cut(string(text), "## Under systemd\n")
		section, _, _ = strings.Cut(section, "\n## ")
		releases(t, "web", "v1", "v2")
		const unit = "/etc/systemd/system/web@.service"
		before := files(t)
		ran, config := 0, 0
		for i, part := range strings.Split(section, "```") {
			if i%2 == 0 {
				continue
			}
			kind, body, _ := strings.Cut(part, "\n")
			switch kind {
			case "ini", "toml":
				name, _, _ := strings.Cut(strings.TrimPrefix(body, "# "), "\n")
				write(t, name, body)
				config += strings.Count(body, "\n")
			case "shell":
				for line := range strings.Lines(body) {
					command := strings.TrimSpace(strings.TrimPrefix(line, "# "))
					switch {
					case strings.HasPrefix(command, "go build"):
						continue // done outside
					case command == "proxyctl retire":
						await(t, "the previous generation to stand by", func() bool {
							st := mustStatus(t, "web")
							return st.generation(st.Previous).State == "standby"
						})
					}
					if strings.Contains(command, "proxyctl install") {
						command = strings.Join(append([]string{command}, members()...), " ")
					}
					ran++
					out := run(t, "sh", "-euc", "cd "+built+"; "+command)
					t.Logf("# %s\n%s", command, out)
					want := map[string]string{
						"curl -s http://127.0.0.1:443/": "v1 1", "proxyctl promote v2": "generation 2 (v2) is current",
						"proxyctl revert": "generation 1 (v1) is current again", "proxyctl status": "web: serving, generation 1 (v1) is current",
					}[command]
					if !strings.Contains(out, want) {
						t.Errorf("%s: no %q in\n%s", command, want, out)
					}
					if strings.HasPrefix(command, "curl") {
						mustTakeItsPath(t, "web")
					}
					if strings.HasPrefix(command, "systemctl re") || command == "proxyctl retire" {
						mustAnswer(t, web, "v1")
					}
				}
			}
		}
		if ran < 11 || config > 18 {
			t.Errorf("%d steps were run, %d lines were to be written", ran, config)
		}
		if err := os.Remove(unit); err != nil {
			t.Error(err)
		}
		run(t, "systemctl", "daemon-reload")
		after := files(t)
		for _, path := range slices.Sorted(maps.Keys(after)) {
			if !before[path] {
				t.Errorf("left over: %s", path)
			}
		}
		for path := range before {
			if !after[path] {
				t.Errorf("gone: %s", path)
			}
		}
		if out := run(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "proxyd*", "web@*"); strings.TrimSpace(out) != "" {
			t.Errorf("systemd still knows of\n%s", out)
		}
		if passwd := run(t, "cat", "/etc/passwd", "/etc/group"); strings.Contains(passwd, "proxyd") {
			t.Error("the user or group is left")
		}
	})
}

// files lists what is where an installation could leave something.
func files(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, root := range []string{"/etc", "/usr/local/bin", "/usr/bin", "/usr/lib/systemd", "/run/proxyd", "/var/lib", "/srv", "/root/.config", "/root/.local", "/opt"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // not there, or just gone
			}
			// The backups that the tools of passwd(5) make.
			if !strings.HasSuffix(path, "-") && !strings.HasSuffix(path, ".lock") {
				found[path] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(fmt.Errorf("list %s: %w", root, err))
		}
	}
	return found
}
