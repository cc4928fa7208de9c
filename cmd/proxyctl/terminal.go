package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// onDescriptor calls do with the descriptor behind w, where there is one.
func onDescriptor(w io.Writer, do func(fd int)) {
	f, ok := w.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}

func isTerminal(w io.Writer) (is bool) {
	onDescriptor(w, func(fd int) {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		is = err == nil
	})
	return is
}

// columns is how wide the terminal behind w is.
func columns(w io.Writer) int {
	width := 80
	onDescriptor(w, func(fd int) {
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			width = int(size.Col)
		}
	})
	return width
}

// clean makes text from outside fit to be shown on one line: what is not
// printable, and so all that could steer a terminal, is written as an escape.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t':
			b.WriteString("    ")
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}

type style string

const (
	stylePlain style = ""
	styleBold  style = "1"
	styleGood  style = "32"
	styleAlert style = "33"
	styleBad   style = "31;1"
	styleQuiet style = "2"
)

func paint(on bool, s style, text string) string {
	if !on || s == stylePlain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[m"
}

// cell is one field of a table.
type cell struct {
	text  string
	style style
	right bool // set to the right, for numbers
}

// table writes rows in columns; the last one is not padded.
func table(w io.Writer, styled bool, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if c.right {
				line.WriteString(gap)
			}
			line.WriteString(paint(styled, c.style, c.text))
			if !c.right {
				line.WriteString(gap)
			}
			line.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func header(titles ...string) []cell {
	row := make([]cell, len(titles))
	for i, t := range titles {
		row[i] = cell{text: t, style: styleQuiet}
	}
	return row
}

// span writes a duration as short as it can be read: 850ms, 12s, 3m05s, 2h40m,
// 5d3h.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// age is span in whole seconds.
func age(d time.Duration) string { return span(d.Truncate(time.Second)) }
