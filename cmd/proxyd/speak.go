package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"
)

// speak gives d its log, on stderr, and the generations' lines their way out, on
// stdout. Nothing that proxyd does waits for who reads there; close flushes both.
func (d *daemon) speak(level string, stdout, stderr io.Writer) error {
	l, err := parseLevel(level)
	if err != nil {
		return err
	}
	// A reader that goes away must not end proxyd: by default Go ends a program
	// whose standard output or error is a pipe that nobody reads (os/signal).
	// Generations get the signal's default back.
	signal.Ignore(syscall.SIGPIPE)
	sink := stderr
	if toJournal, err := journal.StderrIsJournalStream(); err == nil && toJournal && stderr == os.Stderr {
		sink = journalWriter{service: d.name, fallback: stderr}
	}
	logged := newOutlet(sink, 0, func(lines int) []byte {
		var line bytes.Buffer
		newLogger(hclog.Error, &line).Error("lines of the log were lost: nobody read them", "lines", lines)
		return line.Bytes()
	})
	d.log = newLogger(l, logged)
	written := newOutlet(stdout, outputPatience, func(lines int) []byte {
		d.log.Error("lines of generations were lost: nobody read them", "lines", lines)
		return nil // the stream is the generations' own
	})
	d.output = written
	d.outlets = []*outlet{written, logged} // in the order in which they end
	return nil
}

func parseLevel(level string) (hclog.Level, error) {
	l := hclog.LevelFromString(level)
	if l == hclog.NoLevel {
		return l, fmt.Errorf("--log-level %q: say trace, debug, info, warn or error", level)
	}
	return l, nil
}

// newLogger logs text for a person, and JSON under systemd: in text a client
// could forge the priorities that journald reads off the start of a line.
func newLogger(l hclog.Level, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "proxyd", Level: l, Output: w, JSONFormat: os.Getenv("JOURNAL_STREAM") != "",
	})
}

// fail tells a person why proxyd ends. It too waits for no reader for long.
func fail(err error) {
	last := newOutlet(os.Stderr, 0, func(int) []byte { return nil })
	fmt.Fprintf(last, "error: %v\n", err)
	last.close()
}
