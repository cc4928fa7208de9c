package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// heldFromBefore says that a generation's note names a member of the listeners'
// groups by its cookies: these very sockets were steered by an earlier proxyd, which
// found nobody else among them then. A program of a generation may have joined since.
func (p *directPath) heldFromBefore(dir string) bool {
	notes, err := filepath.Glob(filepath.Join(dir, "gen-*", notesName))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(notes, func(path string) bool {
		var note socketNote
		b, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(b, &note) != nil || len(note.Sockets) == 0 {
			return false
		}
		now, err := p.socketsOf(note.Member)
		return err == nil && slices.Equal(now, note.Sockets)
	})
}

// whoHas names the processes that have a socket open, as far as they can be looked
// at; see proc(5).
func whoHas(inode uint32) string {
	want := fmt.Sprintf("socket:[%d]", inode)
	var who []string
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, dir := range dirs {
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // ended, or another user's
		}
		if !slices.ContainsFunc(fds, func(e os.DirEntry) bool {
			is, err := os.Readlink(filepath.Join(dir, "fd", e.Name()))
			return err == nil && is == want
		}) {
			continue
		}
		name := "process " + filepath.Base(dir)
		if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
			name += " (" + strconv.Quote(strings.TrimSpace(string(comm))) + ")"
		}
		who = append(who, name)
	}
	if len(who) == 0 {
		return "a process that cannot be looked at"
	}
	return strings.Join(who, ", ")
}
