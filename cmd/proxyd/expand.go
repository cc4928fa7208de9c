package main

import (
	"fmt"
	"regexp"
	"strings"
)

// placeholder is a {word} or {word:LISTENER} in a text.
type placeholder struct {
	word     string
	listener string // empty: the first listener
}

func (p placeholder) String() string { return "{" + p.key() + "}" }

// key is how Expand's values name it.
func (p placeholder) key() string {
	if p.listener == "" {
		return p.word
	}
	return p.word + ":" + p.listener
}

var placeholderRule = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]*)(?::([A-Za-z0-9][A-Za-z0-9._-]{0,63}))?$`)

// Expand replaces the placeholders of each argument by values, whose keys are
// words without the braces: "release", "port", "port:http". {{ and }} stand for
// one brace. An argument stays one argument whatever its value holds: nothing is
// split, and nothing that was put in is looked at again. A placeholder that
// values does not know is an error that names it. argv is not changed.
func Expand(argv []string, values map[string]string) ([]string, error) {
	expanded := make([]string, len(argv))
	for i, arg := range argv {
		var b strings.Builder
		err := scan(arg, func(text string) { b.WriteString(text) }, func(p placeholder) error {
			value, ok := values[p.key()]
			if !ok {
				return fmt.Errorf("nothing is known to put in the place of %s", p)
			}
			b.WriteString(value)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("expand %q: %w", arg, err)
		}
		expanded[i] = b.String()
	}
	return expanded, nil
}

// scan goes through s and hands on literal text and placeholders, in order.
func scan(s string, literal func(string), found func(placeholder) error) error {
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			literal(s)
			return nil
		}
		literal(s[:i])
		brace := s[i : i+1]
		s = s[i+1:]
		if strings.HasPrefix(s, brace) {
			literal(brace)
			s = s[1:]
			continue
		}
		word, rest, closed := strings.Cut(s, "}")
		m := placeholderRule.FindStringSubmatch(word)
		if brace == "}" || !closed || m == nil {
			return fmt.Errorf("a lone %s; write %s for a literal one", brace, brace+brace)
		}
		if err := found(placeholder{m[1], m[2]}); err != nil {
			return err
		}
		s = rest
	}
	return nil
}
