package systemd

import (
	"os"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/seed8fae2174/proxyd/systemd/booted"
	"github.com/seed8fae2174/proxyd/systemd/units"
)

// The polkit rule allows what the driver makes of a generation that there can be.
func TestTheRuleAllowsWhatTheDriverStarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{
			"web@{generation}.service", "web@{release}.service", "my-app@x-{release}-{generation}.service", "a.b@{generation}-{release}y.service",
		}).Draw(t, "unit")
		template, err := ParseTemplate(unit)
		if err != nil {
			t.Fatal(err)
		}
		printable := rapid.RuneFrom(nil, unicode.L, unicode.N, unicode.P, unicode.S)
		label := strings.ReplaceAll(rapid.StringOfN(printable, 1, 30, 30).Draw(t, "label"), "/", " ")
		if strings.ContainsAny(label[:1], "- ") || label == "." || label == ".." { // no label begins so, or is that
			label = "v" + label
		}
		name, err := template.Unit(rapid.Uint64Min(1).Draw(t, "generation"), label)
		if err != nil {
			t.Fatal(err)
		}
		if !units.Matches([]string{unit}, name) {
			t.Errorf("the rule of %s does not allow %s", unit, name)
		}
	})
}

// The exposure is a number from 0 to 10; ten times it is compared. systemd-analyze
// runs inside the machine, for it writes to /run.
func TestTheShippedServiceIsHardened(t *testing.T) {
	m := booted.Shared(t)
	const unit = "/booted/hardened/proxyd@.service"
	if err := m.CopyIn("units/proxyd@.service", unit); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Try(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit); err != nil {
		t.Errorf("too exposed: %v", err)
	}
}

// What systemd-analyze verify finds wrong of the units themselves.
func TestTheShippedUnitsAreValid(t *testing.T) {
	m := booted.Shared(t)
	const dir = "/booted/units/"
	for _, name := range []string{"proxyd@.service", "proxyd@.socket", "web@.service", "proxyd-user@.service"} {
		text, err := os.ReadFile("units/" + name)
		if err != nil {
			t.Fatal(err)
		}
		// Programs that are not installed here are no mistake of the units.
		for _, program := range []string{"/usr/bin/proxyd", "/usr/bin/proxyctl", "proxyctl"} {
			text = []byte(strings.ReplaceAll(string(text), "="+program+" ", "=/bin/true "))
		}
		if name == "proxyd@.socket" {
			text = append(text, "\n[Socket]\nListenStream=127.0.0.1:8080\n"...)
		}
		if err := m.WriteFile(dir+strings.Replace(name, "@", "@x", 1), string(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"proxyd@x.service", "proxyd@x.socket", "web@x.service", "proxyd-user@x.service"} {
		cmd := m.Command(t.Context(), "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", dir+name)
		cmd.Env = append(cmd.Env, "SYSTEMD_UNIT_PATH="+dir+":")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// No crash loop may end with a closed socket or a unit that is given up.
func TestTheShippedUnitsNeverGiveUp(t *testing.T) {
	for name, lines := range map[string][]string{
		"proxyd@.service": {"KillMode=mixed", "StartLimitIntervalSec=0", "Restart=always", "Type=notify"},
		"proxyd@.socket":  {"StartLimitIntervalSec=0", "TriggerLimitIntervalSec=0"},
	} {
		text, err := os.ReadFile("units/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s does not say %s", name, line)
			}
		}
	}
}
