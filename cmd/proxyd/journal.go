package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalWriter gives the log's lines to journald as they are, JSON, and beside
// that each with its priority and its pairs as fields: `journalctl
// PROXYD_GENERATION=3`, `journalctl -p warning` (systemd.journal-fields(7)). What
// journald does not take goes to the fallback.
type journalWriter struct {
	service  string
	fallback io.Writer
}

// Write gives one line, which is how hclog writes.
func (w journalWriter) Write(line []byte) (int, error) {
	priority, fields, ok := journalFields(line, w.service)
	if ok && journal.Send(strings.TrimSuffix(string(line), "\n"), priority, fields) == nil {
		return len(line), nil
	}
	return w.fallback.Write(line)
}

var priorities = map[string]journal.Priority{
	"trace": journal.PriDebug, "debug": journal.PriDebug, "info": journal.PriInfo,
	"warn": journal.PriWarning, "error": journal.PriErr,
}

// journalFields reads one JSON line of hclog.
func journalFields(line []byte, service string) (journal.Priority, map[string]string, bool) {
	var pairs map[string]any
	if json.Unmarshal(line, &pairs) != nil {
		return 0, nil, false
	}
	level, _ := pairs["@level"].(string)
	priority, ok := priorities[level]
	if !ok {
		return 0, nil, false
	}
	fields := map[string]string{"SYSLOG_IDENTIFIER": "proxyd", "PROXYD_SERVICE": service}
	for k, v := range pairs {
		if name := fieldName(strings.TrimPrefix(k, "@")); name != "" && k != "@timestamp" && k != "@level" {
			if n, isNumber := v.(float64); isNumber && n == float64(int64(n)) {
				v = int64(n)
			}
			fields["PROXYD_"+name] = fmt.Sprint(v)
		}
	}
	return priority, fields, true
}

// fieldName makes a name of capitals, digits and _, "" where it cannot.
func fieldName(key string) string {
	name := strings.ToUpper(key)
	if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || len(name) > 50 {
		return ""
	}
	return name
}
