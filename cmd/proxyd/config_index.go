package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// index finds the line of every key of a TOML document. Keys are written as
// errors show them: backend.env.TZ, listener[1].address, backend.command[2].
type index struct {
	parser unstable.Parser
	text   []byte
	lines  map[string]int
	arrays map[string]int // array tables: how many elements so far
	twice  string         // a key that was defined a second time
	at     int            // its second line
}

// indexLines reads as far as the document is well-formed.
func indexLines(text []byte) *index {
	x := &index{text: text, lines: map[string]int{}, arrays: map[string]int{}}
	x.parser.Reset(text)
	table := ""
	for x.parser.NextExpression() {
		switch e := x.parser.Expression(); e.Kind {
		case unstable.Table:
			key, line := x.key("", e.Key())
			x.add(key, line)
			table = key
		case unstable.ArrayTable:
			key, line := x.key("", e.Key())
			if x.lines[key] == 0 {
				x.lines[key] = line
			}
			table = fmt.Sprintf("%s[%d]", key, x.arrays[key])
			x.arrays[key]++
			x.lines[table] = line
		case unstable.KeyValue:
			x.value(table, e)
		}
	}
	return x
}

// add notes the line of a key, and the first that comes twice.
func (x *index) add(key string, line int) {
	if x.lines[key] > 0 && x.twice == "" {
		x.twice, x.at = key, line
	}
	if x.lines[key] == 0 {
		x.lines[key] = line
	}
}

// value notes a key and what its value holds.
func (x *index) value(table string, e *unstable.Node) {
	key, line := x.key(table, e.Key())
	x.add(key, line)
	x.inside(key, line, e.Value())
}

func (x *index) inside(key string, line int, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			x.value(key, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); {
			n := it.Node()
			if n.Kind == unstable.Comment {
				continue
			}
			if n.Raw.Length > 0 {
				line = x.line(n.Raw.Offset)
			}
			element := fmt.Sprintf("%s[%d]", key, i)
			x.lines[element] = line
			x.inside(element, line, n)
			i++
		}
	}
}

// key joins the parts of a dotted key below table, and tells its line. A part
// that names an array of tables means its last element.
func (x *index) key(table string, parts unstable.Iterator) (key string, line int) {
	key = table
	for parts.Next() {
		if n := x.arrays[key]; n > 0 && table == "" {
			key = fmt.Sprintf("%s[%d]", key, n-1)
		}
		key = join(key, string(parts.Node().Data))
		if line == 0 {
			line = x.line(parts.Node().Raw.Offset)
		}
	}
	return key, line
}

// keyAt gives the innermost key of a line, or an empty string.
func (x *index) keyAt(line int) (found string) {
	for key, at := range x.lines {
		if at == line && (len(key) > len(found) || len(key) == len(found) && key < found) {
			found = key
		}
	}
	return found
}

func (x *index) line(offset uint32) int {
	return 1 + bytes.Count(x.text[:offset], []byte{'\n'})
}

// join puts a key below a table. What is not a bare key of TOML is quoted, so
// that a dot in it cannot be taken for the end of a part.
func join(table, key string) string {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) {
		key = strconv.Quote(key)
	}
	if table == "" {
		return key
	}
	return table + "." + key
}
