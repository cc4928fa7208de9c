package main

import (
	"fmt"
	"io"
	"unicode/utf8"
)

// progress shows what is being waited for on stderr: on a terminal as one line
// that is redrawn, elsewhere as a line for every change.
type progress struct {
	w      io.Writer
	moving bool
	shown  string
}

func (a *app) progress() *progress { return &progress{w: a.stderr, moving: a.moving} }

// show shows state, and on a terminal detail behind it, which changes too often
// for a log.
func (p *progress) show(state, detail string) {
	if !p.moving {
		if state != p.shown {
			fmt.Fprintln(p.w, state)
			p.shown = state
		}
		return
	}
	line := state + detail
	if most := columns(p.w) - 1; utf8.RuneCountInString(line) > most {
		line = string([]rune(line)[:max(most, 0)])
	}
	if line != p.shown {
		fmt.Fprint(p.w, "\r\x1b[K", line)
		p.shown = line
	}
}

// clear takes the line away, so that what comes next begins on a clean one.
func (p *progress) clear() {
	if p.moving && p.shown != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = ""
	}
}
