package backend

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func add(t *testing.T, h *History, e Entry) Entry {
	t.Helper()
	e, err := h.Add(e)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestHistoryGoesOn(t *testing.T) {
	dir := t.TempDir()
	h := OpenHistory(dir)
	want := add(t, h, Entry{Time: time.Now().UTC().Round(0), Event: WhatPromoted, Gen: 2, From: 1, Release: "v2", By: "ann", Reason: "why"})
	add(t, h, Entry{Event: WhatHeld})
	h = OpenHistory(dir)
	if got := h.Last(0); len(got) != 2 || got[0] != want {
		t.Errorf("read %+v", got)
	}
	if got := h.Last(1); len(got) != 1 || got[0].Event != WhatHeld {
		t.Errorf("the last is %+v", got)
	}
	if e := add(t, h, Entry{Event: WhatResumed}); e.Seq != 3 {
		t.Errorf("number %d", e.Seq)
	}
	if h.Highest() != 2 {
		t.Errorf("highest %d", h.Highest())
	}
}

// TestHistoryDamaged: what is damaged is passed over, what follows is read.
func TestHistoryDamaged(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for name, between := range map[string]string{
		"empty line": "\n", "garbage": "{]\n", "zeros": string(make([]byte, 4096)) + "\n", "a long line": long + "\n",
		"a number that went back": `{"seq":1,"event":"starting","generation":7}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := OpenHistory(dir)
			add(t, h, Entry{Event: WhatStarting, Gen: 1})
			appendTo(t, h.path, between)
			add(t, h, Entry{Event: WhatStarting, Gen: 8})
			h = OpenHistory(dir)
			if got := h.Last(0); len(got) != 2 || got[1].Gen != 8 {
				t.Errorf("read %+v", got)
			}
			if h.Highest() != 8 {
				t.Errorf("highest %d", h.Highest())
			}
		})
	}
}

func TestHistoryTorn(t *testing.T) {
	dir := t.TempDir()
	h := OpenHistory(dir)
	for i := range uint64(3) {
		add(t, h, Entry{Event: WhatStarting, Gen: i + 1})
	}
	whole, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole { // killed, or out of space, at every byte
		if err := os.WriteFile(h.path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		before := OpenHistory(dir)
		lines := bytes.Count(whole[:n], []byte("}"))
		if got := len(before.Last(0)); got != lines {
			t.Fatalf("cut at %d: %d entries, not %d", n, got, lines)
		}
		add(t, before, Entry{Event: WhatHeld})
		add(t, before, Entry{Event: WhatResumed})
		if got := len(OpenHistory(dir).Last(0)); got != lines+2 {
			t.Fatalf("cut at %d: %d entries after two more, not %d", n, got, lines+2)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	h := OpenHistory(dir)
	reason := strings.Repeat("why ", 500)
	const entries = 2 * historyBytes / 2000
	for i := range uint64(entries) {
		add(t, h, Entry{Event: WhatStarting, Gen: i + 1, Reason: reason})
	}
	for _, path := range []string{h.path, h.oldPath()} {
		if info, err := os.Stat(path); err != nil || info.Size() > historyBytes+4<<10 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	again := OpenHistory(dir)
	for name, h := range map[string]*History{"written": h, "read": again} {
		last := h.Last(0)
		if len(last) > historyKept || len(last) < historyKept/2 || h.Highest() != entries {
			t.Errorf("%s: %d entries, highest %d", name, len(last), h.Highest())
		}
		for i, e := range last {
			if want := uint64(entries - len(last) + i + 1); e.Seq != want {
				t.Fatalf("%s: entry %d has number %d, not %d", name, i, e.Seq, want)
			}
		}
	}
}

func TestHistoryWithoutADisk(t *testing.T) {
	dir := t.TempDir()
	h := OpenHistory(dir)
	defer takesNoMore(t, dir)()
	e, err := h.Add(Entry{Event: WhatHeld})
	if err == nil || e.Seq != 1 || len(h.Last(0)) != 1 {
		t.Errorf("%+v, %v: it must stay in memory", e, err)
	}
}

func appendTo(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprint(f, s)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
