package backend

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Entry is one line of history: a transition, when, of which generation, who
// asked (empty: proxyd itself) and why.
type Entry struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Event   What      `json:"event"`
	Gen     uint64    `json:"generation,omitempty"`
	Release string    `json:"release,omitempty"`
	From    uint64    `json:"from,omitempty"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

const (
	historyKept  = 1000    // entries in memory, and so in `proxyctl history`
	historyBytes = 1 << 20 // then the file is moved aside and a new one begun
)

// History keeps the entries in memory and in DIR/history.jsonl. It is a log,
// not state: it is not fsynced, and what cannot be written is only lost on disk.
type History struct {
	path    string
	entries []Entry
	seq     uint64
	highest uint64
	torn    bool // the file ends within a line
}

// OpenHistory reads what is in dir; damaged lines are passed over. Highest
// tells the highest number of a generation in it, so that none is used again
// even where the state was lost.
func OpenHistory(dir string) *History {
	h := &History{path: filepath.Join(dir, "history.jsonl")}
	for _, p := range []string{h.oldPath(), h.path} {
		h.read(p)
	}
	return h
}

func (h *History) oldPath() string { return h.path + ".1" }

func (h *History) read(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewReader(f) // no Scanner: a long damaged line would end it
	for {
		line, err := lines.ReadBytes('\n')
		h.torn = len(line) > 0 && err != nil
		var e Entry
		if json.Unmarshal(line, &e) == nil {
			h.highest = max(h.highest, e.Gen)
			if e.Seq > h.seq {
				h.keep(e)
			}
		}
		if err != nil {
			return
		}
	}
}

func (h *History) keep(e Entry) {
	h.seq = e.Seq
	h.highest = max(h.highest, e.Gen)
	if len(h.entries) >= historyKept {
		h.entries = append(h.entries[:0], h.entries[len(h.entries)-historyKept+1:]...)
	}
	h.entries = append(h.entries, e)
}

// Highest gives the highest number of a generation that history tells of.
func (h *History) Highest() uint64 { return h.highest }

// release gives what a generation ran, as far as history tells of it.
func (h *History) release(generation uint64) string {
	for _, e := range slices.Backward(h.entries) {
		if e.Gen == generation && e.Release != "" {
			return e.Release
		}
	}
	return ""
}

// Add numbers e and appends it. It gives the numbered entry; an error says that
// it is in memory only.
func (h *History) Add(e Entry) (Entry, error) {
	e.Seq = h.seq + 1
	h.keep(e)
	b, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("write history: %w", err)
	}
	f, err := os.OpenFile(h.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return e, fmt.Errorf("write history: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > historyBytes {
		_ = os.Rename(h.path, h.oldPath()) // this entry still goes to the old file
	}
	b = append(b, '\n')
	if h.torn { // this entry shall not be lost with the one before
		b = append([]byte{'\n'}, b...)
	}
	n, err := f.Write(b)
	if err != nil {
		h.torn = h.torn || n > 0
		return e, fmt.Errorf("write history: %w", err)
	}
	h.torn = false
	return e, nil
}

// Last gives the last n entries, oldest first; n of 0 gives all that are kept.
func (h *History) Last(n int) []Entry {
	if n <= 0 || n > len(h.entries) {
		n = len(h.entries)
	}
	return append([]Entry(nil), h.entries[len(h.entries)-n:]...)
}
