package systemd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxUnitName is the longest name that systemd takes, in bytes: UNIT_NAME_MAX of
// its src/basic/unit-name.h without the terminating zero.
const maxUnitName = 255

// Errors of templates and of the names made from them.
var (
	ErrTemplate = errors.New("not a unit of a template with {generation} or {release}")
	ErrUnitName = errors.New("not a possible unit name")
)

// Template makes the names of generations' units, as web@{generation}.service,
// and reads them.
type Template struct {
	prefix string // "web@"
	parts  []part // between "@" and ".service"
}

// part is a literal or a placeholder.
type part struct{ literal, placeholder string }

const suffix = ".service"

// ParseTemplate reads the name of a unit that is made from a template unit, with
// {generation}, {release} or both after its "@". There must be one: else all
// generations would be one unit. Between two there must be a "-", which no
// escaped value holds but for a "/", so that names can be read again; a release
// never holds a "/".
func ParseTemplate(s string) (Template, error) {
	fail := func(why string) (Template, error) {
		return Template{}, fmt.Errorf("read unit %q: %w: %s", s, ErrTemplate, why)
	}
	name, ok := strings.CutSuffix(s, suffix)
	if !ok {
		return fail("it does not end in .service")
	}
	prefix, rest, ok := strings.Cut(name, "@")
	if !ok || prefix == "" {
		return fail("it is not of the form NAME@{generation}.service")
	}
	if !literal(prefix) {
		return fail("what is before the @ holds other bytes than letters, digits, and any of :-_.\\")
	}
	t := Template{prefix: prefix + "@"}
	for rest != "" {
		before, after, open := strings.Cut(rest, "{")
		if before != "" {
			if !literal(before) {
				return fail("what is after the @ holds other bytes than letters, digits, and any of :-_.\\")
			}
			t.parts = append(t.parts, part{literal: before})
		}
		if !open {
			break
		}
		word, behind, closed := strings.Cut(after, "}")
		if !closed || word != "generation" && word != "release" {
			return fail("the placeholders are {generation} and {release}")
		}
		for i, p := range t.parts {
			if p.placeholder == word {
				return fail("{" + word + "} is there twice")
			}
			if p.placeholder != "" && (i+1 == len(t.parts) || !strings.Contains(t.parts[i+1].literal, "-")) {
				return fail(`between two placeholders there must be a "-"`)
			}
		}
		t.parts = append(t.parts, part{placeholder: word})
		rest = behind
	}
	for _, p := range t.parts {
		if p.placeholder != "" {
			return t, nil
		}
	}
	return fail("all generations would be the same unit")
}

// literal tells whether s can be in a unit name as it is: VALID_CHARS of
// systemd's src/basic/unit-name.c.
func literal(s string) bool {
	for i := range len(s) {
		if c := s[i]; !plain(c) && c != '-' && c != '\\' {
			return false
		}
	}
	return true
}

// instance tells whether s can be the name of a service that is made from a
// template unit.
func instance(s string) bool {
	prefix, rest, ok := strings.Cut(s, "@")
	rest, isService := strings.CutSuffix(rest, suffix)
	return ok && isService && prefix != "" && rest != "" && literal(prefix) && literal(rest) && len(s) <= maxUnitName
}

// Has tells whether a placeholder ("generation", "release") is in the template.
func (t Template) Has(placeholder string) bool {
	for _, p := range t.parts {
		if p.placeholder == placeholder {
			return true
		}
	}
	return false
}

// String is the template as it was read.
func (t Template) String() string {
	var b strings.Builder
	b.WriteString(t.prefix)
	for _, p := range t.parts {
		b.WriteString(p.literal)
		if p.placeholder != "" {
			b.WriteString("{" + p.placeholder + "}")
		}
	}
	return b.String() + suffix
}

// Unit gives the name of a generation's unit.
func (t Template) Unit(generation uint64, release string) (string, error) {
	var b strings.Builder
	b.WriteString(t.prefix)
	for _, p := range t.parts {
		switch p.placeholder {
		case "generation":
			b.WriteString(strconv.FormatUint(generation, 10))
		case "release":
			if release == "" || strings.ContainsAny(release, "/\x00") {
				return "", fmt.Errorf("name unit of release %q: %w", release, ErrUnitName)
			}
			b.WriteString(Escape(release))
		default:
			b.WriteString(p.literal)
		}
	}
	name := b.String() + suffix
	if len(name) > maxUnitName {
		return "", fmt.Errorf("name unit %q: %w: %d bytes, at most %d", name, ErrUnitName, len(name), maxUnitName)
	}
	return name, nil
}

// Read is the inverse of Unit. What the template does not name is zero. ok is
// false for a name that Unit makes of nothing.
func (t Template) Read(unit string) (generation uint64, release string, ok bool) {
	rest, ok := strings.CutPrefix(unit, t.prefix)
	if !ok {
		return 0, "", false
	}
	if rest, ok = strings.CutSuffix(rest, suffix); !ok {
		return 0, "", false
	}
	for i, p := range t.parts {
		if p.placeholder == "" {
			if rest, ok = strings.CutPrefix(rest, p.literal); !ok {
				return 0, "", false
			}
			continue
		}
		value := rest
		if i+1 < len(t.parts) {
			// The next literal's "-" is in no value, so where it is first is where
			// the value ends; without a second placeholder the literal is all that
			// is left.
			next := t.parts[i+1].literal
			end := strings.LastIndex(rest, next)
			if i+2 < len(t.parts) {
				end = strings.Index(rest, next)
			}
			if end < 0 {
				return 0, "", false
			}
			value = rest[:end]
		}
		rest = rest[len(value):]
		if p.placeholder == "generation" {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0, "", false
			}
			generation = n
		} else {
			r, err := Unescape(value)
			if err != nil {
				return 0, "", false
			}
			release = r
		}
	}
	made, err := t.Unit(generation, release)
	return generation, release, err == nil && made == unit
}

// pattern matches the units of all generations, and maybe others: see
// ListUnitsByPatterns in org.freedesktop.systemd1(5), and glob(7).
func (t Template) pattern() string { return strings.ReplaceAll(t.prefix, `\`, `\\`) + "*" + suffix }
