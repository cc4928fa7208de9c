package control

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestCheckRelease(t *testing.T) {
	for _, good := range []string{"v1.4.2", "2026-01-02 a", "größer", "日本", "a..b", "...", strings.Repeat("a", 128), "~", "a-", "a b"} {
		if err := CheckRelease(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                       "is empty",
		strings.Repeat("a", 129): "129 bytes",
		".":                      "means a directory",
		"..":                     "means a directory",
		"a/b":                    "byte 2 is a slash",
		"-x":                     "an option",
		"--":                     "an option",
		" ":                      "a space",
		" v1":                    "a space",
		"v1 ":                    "a space",
		"\xff":                   "not UTF-8",
		"ab\n":                   "byte 3 is not printable (U+000A)",
		"a\x00":                  "U+0000",
		"a\x7f":                  "U+007F",
		"a\u009b2J":              "U+009B",
		"a\u202eb":               "U+202E",
		"a\u2028b":               "U+2028",
		"a\u00a0b":               "U+00A0",
	} {
		if err := CheckRelease(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"web", "0", "A.b_c-d", strings.Repeat("a", 64)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "is empty", "-a": "does not begin", ".a": "does not begin", "_": "does not begin",
		"a/b": "byte 2", "a b": "byte 2", "ä": "does not begin", "aé": "byte 2", "a\n": "byte 2",
		strings.Repeat("a", 65): "65 bytes", "..": "does not begin",
	} {
		if err := CheckName(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}

func TestEncodeSteersNoTerminal(t *testing.T) {
	const nasty = "\x1b[2J\u009b2J\x7f\u202e\n\"<&>\U000e0001日"
	b, err := Encode(Error{Message: nasty})
	if err != nil {
		t.Fatal(err)
	}
	line, ok := strings.CutSuffix(string(b), "\n")
	if !ok || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q", b)
	}
	if !strings.Contains(line, "<&>") || !strings.Contains(line, "日") {
		t.Errorf("more was escaped than need be: %s", line)
	}
	var back Error
	if err := json.Unmarshal(b, &back); err != nil || back.Message != nasty {
		t.Errorf("came back as %q, %v", back.Message, err)
	}
}

// FuzzDecode: whatever is sent, decode does not panic, takes nothing that
// encoding/json refuses, understands what it takes as encoding/json does, and
// never lets a client say who it is.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", " ", "{}", "null", "[]", `{"release":"v1"}`, `{"generation":3,"if_current":2}`, `{"release":null}`,
		`{"by":"root"}`, `{"By":"root"}`, `{"release":"\ud800"}`, `{"release":"v1",}`, `{"release"}`, `{"a":{"b":[1,{}]}}`,
		`{"generation":1e3}`, `{"generation":1.0}`, "{\"release\":\"\xff\"}", `{} {}`, `{"release":"a","release":"b"}`, `{1:2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := PromoteRequest{By: "uid 1"}
		if err := decode(body, &got); err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("an error that is not UTF-8: %q", err)
			}
			return
		}
		if got.By != "uid 1" {
			t.Errorf("it set who asks: %q", got.By)
		}
		want := PromoteRequest{By: "uid 1"}
		if len(strings.TrimSpace(string(body))) > 0 {
			if err := json.Unmarshal(body, &want); err != nil {
				t.Errorf("encoding/json refuses it: %v", err)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// FuzzCheckRelease: what passes is safe as one element of a path, on a terminal
// and in a system call.
func FuzzCheckRelease(f *testing.F) {
	for _, s := range []string{"v1", "..", "a/b", "\x00", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckRelease(s) != nil {
			return
		}
		if s == "" || s == "." || s == ".." || len(s) > 128 || strings.ContainsAny(s, "/\x00\x1b\n") || s[0] == '-' ||
			strings.TrimSpace(s) != s || !utf8.ValidString(s) {
			t.Errorf("passed: %q", s)
		}
	})
}
