package units

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

//go:embed 50-proxyd.rules
var rules string

// errUnit is what no generation's unit is called.
var errUnit = errors.New("want NAME@{generation}.service, with {generation}, {release} or the name itself after the @")

// errReserved is what no generation's unit may be.
var errReserved = errors.New("these units are proxyd's own or systemd's: a service cannot have them")

// What a placeholder stands for in a unit's name, alike in JavaScript and in Go.
// A number has no leading zero. A label is escaped as systemd-escape(1) does, in
// the one way that it has for each, and is none that the control protocol refuses:
// it holds no "/" and no control byte, is neither "." nor "..", and begins with
// neither "-" nor a space. So it is one element of a path and no option also where
// the template has it unescaped (%I).
const (
	generation = `[1-9][0-9]{0,19}`

	plain   = `[A-Za-z0-9:_]`
	escaped = `\\x(?:2[1-9a-c]|3[b-f]|40|5[b-e]|60|7[b-e]|[89a-f][0-9a-f])` // all but " ", "-" and a first "."
	first   = plain + `|` + escaped
	other   = first + `|\\x20|\\x2d`
	rest    = `(?:` + other + `|\.)`
	release = `(?:(?:` + first + `)` + rest + `*|\\x2e(?:` + other + `)` + rest + `*|\\x2e\.` + rest + `+)`
)

// reserved are templates that no service may have: proxyd's own units, and those of
// systemd that hold whole sessions or the machine together. Who could start and stop
// these would have the machine.
var reserved = regexp.MustCompile(`^(?:proxyd|systemd-.*|user|user-runtime-dir|autovt|(?:container-|serial-|console-)?getty|modprobe)$`)

var literal = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]*$`)

// Template gives what is before the "@" of a generation's unit, which is written
// as backend.unit in the config has it, or is one unit's own name. It is an error
// for what is neither, and for proxyd's own units and systemd's.
func Template(unit string) (string, error) {
	if _, err := expression(unit); err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(unit, "@")
	if reserved.MatchString(name) {
		return "", fmt.Errorf("unit %q: %w", unit, errReserved)
	}
	return name, nil
}

// expression gives a regular expression of the names that a unit of generations
// has.
func expression(unit string) (string, error) {
	fail := fmt.Errorf("unit %q: %w", unit, errUnit)
	name, ok := strings.CutSuffix(unit, ".service")
	template, number, isTemplate := strings.Cut(name, "@")
	if !ok || !isTemplate || template == "" || number == "" || template[0] == '-' || strings.ContainsAny(template, "{}") || strings.Contains(number, "@") {
		return "", fail
	}
	var b strings.Builder
	for rest := name; rest != ""; {
		before, after, open := strings.Cut(rest, "{")
		if !literal.MatchString(before) {
			return "", fail
		}
		b.WriteString(regexp.QuoteMeta(before))
		if !open {
			break
		}
		word, behind, closed := strings.Cut(after, "}")
		switch {
		case closed && word == "generation":
			b.WriteString(generation)
		case closed && word == "release":
			b.WriteString(release)
		default:
			return "", fail
		}
		rest = behind
	}
	return "^" + b.String() + `\.service$`, nil
}

// Matches tells whether name is one that a unit of list stands for.
func Matches(list []string, name string) bool {
	for _, unit := range list {
		if e, err := expression(unit); err == nil && regexp.MustCompile(e).MatchString(name) {
			return true
		}
	}
	return false
}

// Rules is the polkit rule for the units of generations, as Template takes them.
// What Template refuses is left out.
func Rules(list []string) string {
	var expressions []string
	for _, unit := range list {
		if _, err := Template(unit); err != nil {
			continue
		}
		if e, err := expression(unit); err == nil {
			expressions = append(expressions, "/"+e+"/")
		}
	}
	const shipped = `var proxydUnits = [/^web@[1-9][0-9]{0,19}\.service$/];`
	return strings.Replace(rules, shipped, "var proxydUnits = ["+strings.Join(expressions, ", ")+"];", 1)
}
