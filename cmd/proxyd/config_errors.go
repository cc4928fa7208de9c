package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// ConfigError is one thing wrong with the configuration.
type ConfigError struct {
	File    string // empty for what a flag said
	Line    int    // from 1; 0: nowhere in particular
	Key     string // "drain.deadline", or the flag
	Message string
	Hint    string // how to put it right, or empty
}

// Error gives "web.toml:12: drain.deadline: message; hint".
func (e *ConfigError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// ConfigErrors is everything wrong with the configuration, in the file's order.
type ConfigErrors []*ConfigError

// Error gives one line for each.
func (e ConfigErrors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single errors.
func (e ConfigErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, one := range e {
		errs[i] = one
	}
	return errs
}

// orNil sorts e and gives it as an error, or nil where it is empty.
func (e ConfigErrors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *ConfigError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	return e
}

// has says whether something is already known to be wrong at key or above it.
func (e ConfigErrors) has(key string) bool {
	return slices.ContainsFunc(e, func(one *ConfigError) bool {
		return one.Key == key || strings.HasPrefix(key, one.Key+".") || strings.HasPrefix(key, one.Key+"[")
	})
}

// places remembers where each key was given.
type places struct {
	file  string
	lines map[string]int    // key to line, of values and of tables
	flags map[string]string // key to the flag that took its place
}

func (p *places) flag(key, flag string) {
	if p.flags == nil {
		p.flags = map[string]string{}
	}
	p.flags[key] = flag
}

// given says whether somebody wrote key, rather than leaving it at its default.
func (p *places) given(key string) bool { return p.lines[key] > 0 || p.flags[key] != "" }

// problem says what is wrong at key: at the flag that took the place of it or of
// what it is in, else at its line or, where it is missing, at the line of the
// table that it belongs into.
func (p *places) problem(key, message, hint string) *ConfigError {
	for at := key; at != ""; at = parent(at) {
		if flag := p.flags[at]; flag != "" {
			if flag == "COMMAND" {
				flag += key[len(at):]
			}
			return &ConfigError{Key: flag, Message: message, Hint: hint}
		}
	}
	for at := key; at != ""; at = parent(at) {
		if line := p.lines[at]; line > 0 {
			return &ConfigError{File: p.file, Line: line, Key: key, Message: message, Hint: hint}
		}
	}
	return &ConfigError{File: p.file, Key: key, Message: message, Hint: hint}
}

// parent cuts the last part off a key: backend of backend.env, and
// listener[0] of listener[0].name, and listener of listener[0].
func parent(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}
