package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// maxConfig is far more than any config has. It keeps a wrong path (a disk, a
// log) from being read whole.
const maxConfig = 1 << 20

// readConfig reads the file at path over the defaults. The error says that it
// cannot be read or is not TOML; unknown keys and wrong types are kept for
// Validate, which reports them beside all else.
//
// go-toml decodes into maps here, not into the struct: its strict mode ends at
// the first wrong type, and speaks of Go's types, not of what to write instead.
func readConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("read config: %s is longer than %d bytes", path, maxConfig)
	}
	return parseConfig(path, text)
}

// parseConfig is readConfig without the file.
func parseConfig(path string, text []byte) (*Config, error) {
	x := indexLines(text)
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, ConfigErrors{syntaxError(path, err, x)}
	}
	c := defaults()
	c.Name = nameOfFile(path)
	c.places.file, c.places.lines = path, x.lines
	c.table("", tree, reflect.ValueOf(c).Elem())
	for i := range c.Listeners {
		if l := &c.Listeners[i]; l.Name == "" && !c.places.given(fmt.Sprintf("listener[%d].name", i)) {
			l.Name = defaults().Name
		}
	}
	c.takeRules()
	return c, nil
}

func syntaxError(path string, err error, x *index) *ConfigError {
	e := &ConfigError{File: path, Message: strings.TrimPrefix(err.Error(), "toml: ")}
	var at *toml.DecodeError
	switch {
	case x.twice != "":
		e.Line, e.Key = x.at, x.twice
		e.Message = fmt.Sprintf("defined twice, first in line %d", x.lines[x.twice])
	case errors.As(err, &at):
		e.Line, _ = at.Position()
		e.Key = x.keyAt(e.Line)
	}
	return e
}

func (c *Config) wrong(key, message, hint string) {
	c.problems = append(c.problems, c.places.problem(key, message, hint))
}

// takeProblems gives what was found to be wrong since, as an error, and forgets it.
func (c *Config) takeProblems() error {
	found := c.problems
	c.problems = nil
	return found.orNil()
}

// table fills the fields of v from a TOML table.
func (c *Config) table(at string, table map[string]any, v reflect.Value) {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("toml"); tag != "" {
			fields[tag] = v.Field(i)
		}
	}
	for name, value := range table {
		key := join(at, name)
		field, ok := fields[name]
		if !ok {
			c.wrong(key, "unknown key", suggestion(name, fields))
			continue
		}
		c.value(key, value, field)
	}
}

// value fills one field. What does not fit it is noted, and the field is left as
// it is.
func (c *Config) value(key string, value any, field reflect.Value) {
	if field.Type() == reflect.TypeFor[Duration]() {
		c.duration(key, value, field)
		return
	}
	switch field.Kind() {
	case reflect.String:
		if s, ok := value.(string); ok {
			field.SetString(s)
			return
		}
		hint := "write it in quotes"
		if k := reflect.ValueOf(value).Kind(); k == reflect.Slice || k == reflect.Map {
			hint = ""
		}
		c.wrong(key, "must be a string, and is "+kindOf(value), hint)
	case reflect.Bool:
		if b, ok := value.(bool); ok {
			field.SetBool(b)
			return
		}
		c.wrong(key, "must be true or false, and is "+kindOf(value), "")
	case reflect.Int:
		if n, ok := value.(int64); ok {
			field.SetInt(n)
			return
		}
		c.wrong(key, "must be a whole number, and is "+kindOf(value), "")
	case reflect.Struct:
		if t, ok := value.(map[string]any); ok {
			c.table(key, t, field)
			return
		}
		c.wrong(key, "must be a table, and is "+kindOf(value), "write ["+key+"]")
	case reflect.Map:
		t, ok := value.(map[string]any)
		if !ok {
			c.wrong(key, "must be a table of strings, and is "+kindOf(value), `write `+parentless(key)+` = {NAME = "VALUE"}`)
			return
		}
		field.Set(reflect.MakeMap(field.Type()))
		for name, value := range t {
			s := reflect.New(field.Type().Elem()).Elem()
			c.value(join(key, name), value, s)
			field.SetMapIndex(reflect.ValueOf(name), s)
		}
	case reflect.Slice:
		c.list(key, value, field)
	}
}

func (c *Config) list(key string, value any, field reflect.Value) {
	elements, ok := value.([]any)
	if !ok {
		hint := `write ["PROGRAM", "ARGUMENT"]`
		if strings.HasSuffix(key, ".accept_proxy") {
			hint = `write ["10.0.0.0/8"]`
		}
		if field.Type().Elem().Kind() == reflect.Struct {
			hint = "write [[" + key + "]]"
		}
		c.wrong(key, "must be a list, and is "+kindOf(value), hint)
		return
	}
	field.Set(reflect.MakeSlice(field.Type(), len(elements), len(elements)))
	for i, e := range elements {
		c.value(fmt.Sprintf("%s[%d]", key, i), e, field.Index(i))
	}
}

func (c *Config) duration(key string, value any, field reflect.Value) {
	const hint = `write it like "30s", "10m" or "1h30m"`
	s, ok := value.(string)
	if !ok {
		c.wrong(key, "must be a duration, and is "+kindOf(value), hint)
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		c.wrong(key, fmt.Sprintf("%q is not a duration", s), hint)
	case d < 0:
		c.wrong(key, fmt.Sprintf("%q is less than nothing", s), "")
	default:
		field.SetInt(int64(d))
	}
}

// kindOf names the type of a TOML value.
func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

func parentless(key string) string { return strings.TrimLeft(key[len(parent(key)):], ".") }

// suggestion finds the key that was meant: one that differs in about a third of
// its letters at most.
func suggestion(name string, fields map[string]reflect.Value) string {
	best, found := len(name)/3+2, ""
	var names []string
	for field := range fields {
		names = append(names, field)
	}
	slices.Sort(names)
	for _, field := range names {
		if d := distance(name, field); d < best {
			best, found = d, field
		}
	}
	if found != "" {
		return "did you mean " + found + "?"
	}
	return "known here: " + strings.Join(names, ", ")
}

// distance is how many letters have to be put in, taken out or replaced to make
// b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			keep := last
			if a[i] != b[j] {
				keep++
			}
			last = row[j+1]
			row[j+1] = min(keep, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}
