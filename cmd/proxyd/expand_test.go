package main

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var someValues = map[string]string{
	"release": "v1 {port} $(x)", "generation": "7", "port": "61000", "port:admin-2.x": "61001", "socket": "/s",
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"web", "web"},
		{"{port}", "61000"},
		{"a{port}b{generation}c", "a61000b7c"},
		{"{port:admin-2.x}", "61001"},
		{"{release}", "v1 {port} $(x)"}, // what was put in is not looked at again
		{"{{port}}", "{port}"},
		{"{{{port}}}", "{61000}"},
		{"events {{ }}", "events { }"},
		{"{{}}", "{}"},
	} {
		got, err := Expand([]string{c.in}, someValues)
		if err != nil || got[0] != c.want {
			t.Errorf("Expand(%q) = %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestExpandErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"{address}", `expand "{address}": nothing is known to put in the place of {address}`},
		{"{port:x}", `expand "{port:x}": nothing is known to put in the place of {port:x}`},
		{"{PORT}", `expand "{PORT}": nothing is known to put in the place of {PORT}`},
		{"{", `expand "{": a lone {; write {{ for a literal one`},
		{"}", `expand "}": a lone }; write }} for a literal one`},
		{"{port", `expand "{port": a lone {; write {{ for a literal one`},
		{"{port}}", `expand "{port}}": a lone }; write }} for a literal one`},
		{"{a b}", `expand "{a b}": a lone {; write {{ for a literal one`},
		{"{port:../x}", `expand "{port:../x}": a lone {; write {{ for a literal one`},
		{"{}", `expand "{}": a lone {; write {{ for a literal one`},
	} {
		got, err := Expand([]string{"fine", c.in}, someValues)
		if err == nil || err.Error() != c.want {
			t.Errorf("Expand(%q) = %q, %v, want %s", c.in, got, err, c.want)
		}
	}
}

var doubled = strings.NewReplacer("{", "{{", "}", "}}")

// Arguments stay as many as they were, in their order; text comes through as it
// was written, and values as they are, whatever bytes are in them.
func TestExpandKeepsArgumentsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := map[string]string{}
		for _, k := range []string{"release", "port", "port:a"} {
			values[k] = rapid.StringOf(rapid.SampledFrom([]rune("{}ab \n'\"$:;"))).Draw(t, k)
		}
		var argv, want []string
		for range rapid.IntRange(0, 4).Draw(t, "arguments") {
			var in, out strings.Builder
			for range rapid.IntRange(0, 5).Draw(t, "parts") {
				if rapid.Bool().Draw(t, "literal") {
					text := rapid.StringOf(rapid.SampledFrom([]rune("{}ab \x00é"))).Draw(t, "text")
					in.WriteString(doubled.Replace(text))
					out.WriteString(text)
				} else {
					key := rapid.SampledFrom([]string{"release", "port", "port:a"}).Draw(t, "key")
					in.WriteString("{" + key + "}")
					out.WriteString(values[key])
				}
			}
			argv, want = append(argv, in.String()), append(want, out.String())
		}
		before := slices.Clone(argv)
		got, err := Expand(argv, values)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("Expand(%q) = %q, %v, want %q", argv, got, err, want)
		}
		if !slices.Equal(argv, before) {
			t.Fatalf("Expand changed its argument to %q", argv)
		}
	})
}

// What Expand takes without an error is text, doubled braces and known
// placeholders: with every value empty, what is left, doubled again, is a part
// of the argument.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"{port}", "{{x}}", "{", "}", "a{port:a}b", "{{{port}}}", "\xff{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		values := map[string]string{"port": "", "port:a": "", "release": ""}
		got, err := Expand([]string{s}, values)
		if err != nil {
			if !strings.ContainsAny(s, "{}") {
				t.Fatalf("Expand(%q): %v", s, err)
			}
			return
		}
		rest := strings.NewReplacer("{{", "{{", "}}", "}}", "{port}", "", "{port:a}", "", "{release}", "").Replace(s)
		if doubled.Replace(got[0]) != rest {
			t.Fatalf("Expand(%q) = %q", s, got[0])
		}
	})
}
