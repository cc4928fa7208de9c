package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// journalLimit is for reading the journal, of which no promote depends.
	journalLimit = 5 * time.Second
	lineLimit    = 2000 // bytes of one line that are shown
)

// journalOf gives the last lines of an invocation: the program's carry
// _SYSTEMD_INVOCATION_ID, systemd's own of it INVOCATION_ID, in a user manager
// USER_INVOCATION_ID (systemd.journal-fields(7)). Only what PID 1, root or our
// own user's manager wrote counts as systemd's.
func (d *Driver) journalOf(invocation string) []string {
	match := []string{"_SYSTEMD_INVOCATION_ID=" + invocation, "+", "INVOCATION_ID=" + invocation, "_UID=0"}
	if d.config.User {
		match = append(match, "+", "USER_INVOCATION_ID="+invocation, "_UID="+strconv.Itoa(os.Geteuid()))
	}
	return d.journal(match...)
}

// journalSince gives the last lines of a unit whose invocation is not known.
func (d *Driver) journalSince(unit string, since time.Time) []string {
	from := fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000)
	if d.config.User {
		return d.journal(from, "_SYSTEMD_USER_UNIT="+unit, "+", "USER_UNIT="+unit)
	}
	return d.journal(from, "_SYSTEMD_UNIT="+unit, "+", "UNIT="+unit, "_UID=0")
}

// journal runs journalctl(1), whose reader of the files there is none of in Go
// without C. What cannot be read is no lines: they help, nothing rests on them.
func (d *Driver) journal(args ...string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), journalLimit)
	defer cancel()
	if os.Geteuid() == 0 {
		// What was written before is in the files after. Others may not ask.
		_ = exec.CommandContext(ctx, "journalctl", "--sync").Run()
	}
	args = append([]string{"--quiet", "--no-pager", "--all", "--output=cat", "--lines=" + strconv.Itoa(d.config.Lines)}, args...)
	for wait := retryMin; ; wait *= 2 {
		cmd := exec.CommandContext(ctx, "journalctl", args...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if lines := cleanLines(string(out)); len(lines) > 0 || err != nil || wait > retryMax/4 || os.Geteuid() == 0 {
			return lines
		}
		select {
		case <-time.After(wait): // journald may still have it before it
		case <-ctx.Done():
			return nil
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
