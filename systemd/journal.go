package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// journalLimit is for reading the journal, of which no promote depends.
	journalLimit = 5 * time.Second
	lineLimit    = 2000 // bytes of one line that are shown
	// settle is the time between two reads that are the same when it is believed
	// that no more lines come.
	settle = 100 * time.Millisecond
)

// journal gives the last lines of a unit since a time: those that its processes
// wrote and those that systemd wrote of it (systemd.journal-fields(7)). The
// unit's name and a time, not the invocation id, for journald looks that up when
// it takes a line, and the unit may have been forgotten by then.
//
// journalctl(1) reads, as there is no reader of the files without C. What cannot
// be read is no lines: they help, nothing rests on them.
func (d *Driver) journal(unit string, since time.Time) []string {
	ctx, cancel := context.WithTimeout(context.Background(), journalLimit)
	defer cancel()
	args := []string{
		"--quiet", "--no-pager", "--all", "--output=cat", "--lines=" + strconv.Itoa(d.config.Lines),
		fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000),
	}
	if d.config.User {
		args = append(args, "_SYSTEMD_USER_UNIT="+unit, "+", "USER_UNIT="+unit, "_UID="+strconv.Itoa(os.Geteuid()))
	} else {
		args = append(args, "_SYSTEMD_UNIT="+unit, "+", "UNIT="+unit, "_UID=0")
	}
	// Read until a read finds no more than the one before. That is no proof that
	// all is there, but there is none: journald takes a program's lines and
	// systemd's from different sockets, and --sync waits for neither.
	var lines []string
	for wait := retryMin; ; wait *= 2 {
		cmd := exec.CommandContext(ctx, "journalctl", args...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if err != nil {
			return lines
		}
		before := lines
		lines = cleanLines(string(out))
		if wait > settle && slices.Equal(before, lines) {
			return lines
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return lines
		}
	}
}

// cleanLines splits text into lines that a terminal or a log can be given.
func cleanLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if len(line) > lineLimit {
			line = line[:lineLimit] + "…"
		}
		line = strings.ToValidUTF8(line, "\uFFFD")
		lines = append(lines, strings.Map(func(r rune) rune {
			if r == '\t' {
				return ' '
			}
			if !unicode.IsPrint(r) {
				return '\uFFFD'
			}
			return r
		}, line))
	}
	return lines
}
