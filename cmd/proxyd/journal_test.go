package main

import (
	"bytes"
	"maps"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestJournalFields(t *testing.T) {
	line := `{"@level":"warn","@message":"died","@module":"proxyd.backend","@timestamp":"2026-01-02","generation":12345678,"release":"v2","bad-key":1,"reason":"a\nb"}`
	priority, fields, ok := journalFields([]byte(line), "web")
	want := map[string]string{"SYSLOG_IDENTIFIER": "proxyd", "PROXYD_SERVICE": "web", "PROXYD_MESSAGE": "died",
		"PROXYD_MODULE": "proxyd.backend", "PROXYD_GENERATION": "12345678", "PROXYD_RELEASE": "v2", "PROXYD_REASON": "a\nb"}
	if !ok || priority != journal.PriWarning || !maps.Equal(fields, want) {
		t.Errorf("%v, priority %d, fields %v", ok, priority, fields)
	}
	for _, line := range []string{"panic: oh", `{"a":1}`, `{"@level":"loud"}`} {
		var out bytes.Buffer
		if n, err := (journalWriter{fallback: &out}).Write([]byte(line)); n != len(line) || err != nil || out.String() != line {
			t.Errorf("%q became %q, %d, %v", line, out.String(), n, err)
		}
	}
}
