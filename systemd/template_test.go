package systemd

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTemplateNamesUnits(t *testing.T) {
	for _, c := range []struct {
		template   string
		generation uint64
		release    string
		unit       string
	}{
		{"web@{generation}.service", 7, "v1", "web@7.service"},
		{"web@{release}.service", 7, "v1.2", "web@v1.2.service"},
		{"web@{release}.service", 7, "v1-rc 1", `web@v1\x2drc\x201.service`},
		{"web@{release}.service", 7, ".v1", `web@\x2ev1.service`},
		{"web@{release}.service", 7, "..", `web@\x2e..service`},
		{"web@{release}.service", 7, "$(reboot);\n%i", `web@\x24\x28reboot\x29\x3b\x0a\x25i.service`},
		{"web@{release}.service", 7, "é", `web@\xc3\xa9.service`},
		{"web@{generation}-{release}.service", 7, "v-1", `web@7-v\x2d1.service`},
		{"web@{release}-g{generation}.service", 7, "a-g1", `web@a\x2dg1-g7.service`},
		{"web@blue-{generation}x.service", 18446744073709551615, "v", "web@blue-18446744073709551615x.service"},
	} {
		tmpl, err := ParseTemplate(c.template)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := tmpl.String(); got != c.template {
			t.Errorf("%s became %s", c.template, got)
		}
		unit, err := tmpl.Unit(c.generation, c.release)
		if err != nil || unit != c.unit {
			t.Errorf("%s of %q is %s, %v; not %s", c.template, c.release, unit, err, c.unit)
		}
	}
}

func TestTemplateRefuses(t *testing.T) {
	for _, s := range []string{
		"", "web", "web.service", "web@.service", "web@a.service", "@{generation}.service", "web@{generation}",
		"web@{generation}.socket", "web-{generation}.service", "{release}@{generation}.service", "web@{port}.service",
		"web@{generation.service", "web@{generation}{release}.service", "web@{generation}.{release}.service",
		"web@{generation}-{generation}.service", "we b@{generation}.service", "web@{generation}/x.service",
		"web@%i{generation}.service", "../web@{generation}.service", "web@\x00{generation}.service", "web@a@{generation}.service",
	} {
		if tmpl, err := ParseTemplate(s); !errors.Is(err, ErrTemplate) {
			t.Errorf("%q was taken: %v, %v", s, tmpl, err)
		}
	}
	tmpl, err := ParseTemplate("web@{release}.service")
	if err != nil {
		t.Fatal(err)
	}
	longest := strings.Repeat("x", maxUnitName-len("web@.service"))
	if _, err := tmpl.Unit(1, longest); err != nil {
		t.Error(err)
	}
	for _, release := range []string{"", "a/b", "a\x00", longest + "x", strings.Repeat("\n", 128)} {
		if unit, err := tmpl.Unit(1, release); !errors.Is(err, ErrUnitName) {
			t.Errorf("%q made %q, %v", release, unit, err)
		}
	}
}

// Whatever is put into a name is read from it, and nothing else reads as a name.
func TestTemplateReadsWhatItNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tmpl, err := ParseTemplate(rapid.SampledFrom([]string{
			"web@{generation}.service", "web@{release}.service", "web@x-{release}-y.service",
			"web@{generation}-{release}.service", "web@{release}-{generation}.service", "web@{release}--{generation}9.service",
		}).Draw(t, "template"))
		if err != nil {
			t.Fatal(err)
		}
		generation := rapid.Uint64().Draw(t, "generation")
		release := rapid.StringMatching(`[-.a-y0-9\\ \n{}@]{1,20}`).Draw(t, "release")
		unit, err := tmpl.Unit(generation, release)
		if err != nil {
			t.Fatal(err)
		}
		g, r, ok := tmpl.Read(unit)
		if !ok || tmpl.Has("generation") && g != generation || tmpl.Has("release") && r != release {
			t.Fatalf("%s read as %d %q %v", unit, g, r, ok)
		}
		changed := rapid.StringMatching(`web@[-.a-y0-9\\x]{0,12}\.service`).Draw(t, "other")
		if g, r, ok := tmpl.Read(changed); ok {
			if again, err := tmpl.Unit(g, r); err != nil || again != changed {
				t.Fatalf("%s read as %d %q, which is %s, %v", changed, g, r, again, err)
			}
		}
	})
}

func TestTemplateReadsNoOtherNames(t *testing.T) {
	tmpl, err := ParseTemplate("web@{generation}.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{
		"", "web.service", "web@.service", "web@x.service", "web@07.service", "web@+7.service", "web@-7.service",
		"web@7.service.service", "web@7", "xweb@7.service", "web@18446744073709551616.service", "web2@7.service",
	} {
		if g, r, ok := tmpl.Read(unit); ok {
			t.Errorf("%q read as %d %q", unit, g, r)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", ".", "..", "/", "-", "a-b", "v1.2", "\x00", "\xff", "é", `\x2d`, ".a.", "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := Escape(s)
		for i := range len(e) {
			if !plain(e[i]) && e[i] != '-' && e[i] != '\\' {
				t.Fatalf("%q became %q, which no unit name may hold", s, e)
			}
		}
		back, err := Unescape(e)
		if err != nil || back != s {
			t.Fatalf("%q became %q and then %q, %v", s, e, back, err)
		}
		if u, err := Unescape(s); err == nil && Escape(u) != s {
			t.Fatalf("%q is taken for the escaped %q", s, u)
		}
	})
}

// Compared with the real tool, many at once, for each call of it costs a process.
func TestEscapeIsSystemds(t *testing.T) {
	tool, err := exec.LookPath("systemd-escape")
	if err != nil {
		need(t, "there is no systemd-escape (Debian package systemd)")
	}
	var all []string
	for c := 1; c < 256; c++ {
		all = append(all, string([]byte{byte(c)}), string([]byte{'a', byte(c), 'b'}))
	}
	rapid.Check(t, func(t *rapid.T) {
		words := append([]string{}, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 30).Draw(t, "word"))
		}), 1, 100).Draw(t, "words")...)
		words = append(words, all...)
		all = nil
		out, err := exec.Command(tool, append([]string{"--"}, words...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		theirs := strings.Split(strings.TrimSuffix(string(out), "\n"), " ")
		if len(theirs) != len(words) {
			t.Fatalf("%d words became %d", len(words), len(theirs))
		}
		for i, w := range words {
			if got := Escape(w); got != theirs[i] {
				t.Fatalf("%q is %q, systemd says %q", w, got, theirs[i])
			}
		}
	})
}
