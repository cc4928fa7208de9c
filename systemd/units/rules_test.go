package units

import (
	"os"
	"strings"
	"testing"
)

func TestWhatAUnitStandsFor(t *testing.T) {
	for _, c := range []struct {
		unit    string
		yes, no []string
	}{
		{"web@{generation}.service",
			[]string{"web@1.service", "web@18446744073709551615.service"},
			[]string{"web@.service", "web@0.service", "web@01.service", "web@1a.service", "web@v1.service", "web@1.service.service",
				"web@1.socket", "web-admin@1.service", "aweb@1.service", "web@1.service\n", "web@1/2.service", "web@1-2.service"}},
		{"web@{release}.service",
			[]string{"web@v1.service", `web@a\x2db.service`, `web@\x2ehidden.service`, `web@\xc3\xa4.service`, "web@1.service",
				`web@\x2e...service`, `web@\x2e\x2dx.service`, `web@\x2e.x.service`, `web@a\x20\x2db.service`, `web@\x7bx\x7d.service`},
			[]string{"web@.service", "web@..service", "web@...service", "web@a-b.service", `web@..\x2fetc.service`, `web@a\x2fb.service`,
				`web@a\x00b.service`, `web@a\x2DB.service`,
				`web@\x2e.service`, `web@\x2e..service`, `web@\x2e\x2e.service`, `web@a\x2eb.service`, `web@\x61.service`, `web@\x5f.service`, `web@a\x7f.service`,
				`web@\x2d\x2dhelp.service`, `web@\x2dr.service`, `web@\x20.service`, `web@\x20\x2dr.service`, `web@a\b.service`, "web@a@b.service"}},
		{"web@r-{release}-{generation}.service",
			[]string{"web@r-v1-7.service"}, []string{"web@r-v1.service", "web@r-v1-x.service", "web@v1-7.service"}},
		{`nginx@blue\x2d1.service`,
			[]string{`nginx@blue\x2d1.service`}, []string{"nginx@blue.service", "nginx@bluexx2d1.service", "nginx@green.service"}},
		{"a.b@{generation}.service", []string{"a.b@1.service"}, []string{"axb@1.service"}},
	} {
		for _, name := range c.yes {
			if !Matches([]string{"x@{generation}.service", c.unit}, name) {
				t.Errorf("%s does not stand for %q", c.unit, name)
			}
		}
		for _, name := range c.no {
			if Matches([]string{c.unit}, name) {
				t.Errorf("%s stands for %q", c.unit, name)
			}
		}
	}
}

func TestWhatIsNoUnit(t *testing.T) {
	for _, unit := range []string{"", "web", "web.service", "web@.service", "web@{generation}.socket", "web@{fixed}.service", "web@{generation.service",
		"{release}@1.service", "-web@{generation}.service", "web@*.service", "web@a b.service", "web@/.service", "web@\"];.service", "web@a@{generation}.service", "web@}.service",
		"proxyd@{generation}.service", "user@{generation}.service", "user-runtime-dir@1000.service", "serial-getty@{release}.service", "systemd-fsck@{release}.service"} {
		if template, err := Template(unit); err == nil {
			t.Errorf("%q is taken for one of %q", unit, template)
		}
		if strings.Contains(Rules([]string{unit}), "var proxydUnits = [/") {
			t.Errorf("%q is in the rule", unit)
		}
	}
	if template, err := Template(`my-app@x-{release}.service`); err != nil || template != "my-app" {
		t.Error(template, err)
	}
}

// The shipped file is the rule of the README's service.
func TestTheRule(t *testing.T) {
	shipped, err := os.ReadFile("50-proxyd.rules")
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(Rules([]string{"web@{generation}.service"}), "];"); !strings.HasPrefix(string(shipped), got+"];") {
		t.Errorf("the shipped rule is not\n%s", got)
	}
	want := `var proxydUnits = [/^api@(?:`
	if got := Rules([]string{"api@{release}.service", "nginx@blue.service"}); !strings.Contains(got, want) || !strings.Contains(got, `/^nginx@blue\.service$/];`) {
		t.Errorf("the rule is\n%s", got)
	}
	if got := Rules(nil); !strings.Contains(got, "var proxydUnits = [];") {
		t.Errorf("without a service the rule is\n%s", got)
	}
}
