package backend

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// filesEndAt makes every write past so many bytes of a file fail, and one across
// it fall short, as on a full disk (setrlimit(2), RLIMIT_FSIZE), until the
// function that it gives is called.
func filesEndAt(t *testing.T, bytes uint64) (again func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = bytes
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	}
}

// TestStoreWriteFallsShort: the file is made, but not all of it can be written.
func TestStoreWriteFallsShort(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, numbered(1))
	again := filesEndAt(t, 30)
	p, err := s.Prepare(numbered(2))
	memory, saveErr := s.Save(numbered(2))
	again()
	if p != nil || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("prepared with %v", err)
	}
	if memory || !errors.Is(saveErr, syscall.EFBIG) {
		t.Errorf("saved: memory %t, %v", memory, saveErr)
	}
	if _, d, found, notes := openStore(t, dir, runtime); !found || len(notes) > 0 || d.Current != 1 {
		t.Errorf("found %t with %d, notes %v", found, d.Current, notes)
	}
	for _, dir := range []string{dir, runtime} {
		if left := filesIn(t, dir); len(left) != 1 {
			t.Errorf("left over: %v", left)
		}
	}
}

// TestHistoryWriteFallsShort: half a line is written; the next is not lost with it.
func TestHistoryWriteFallsShort(t *testing.T) {
	dir := t.TempDir()
	h := OpenHistory(dir)
	add(t, h, Entry{Event: WhatHeld})
	info, err := os.Stat(h.path)
	if err != nil {
		t.Fatal(err)
	}
	again := filesEndAt(t, uint64(info.Size())+20)
	_, err = h.Add(Entry{Event: WhatResumed, Reason: strings.Repeat("x", 100)})
	again()
	if err == nil {
		t.Error("no error")
	}
	add(t, h, Entry{Event: WhatHeld})
	b, err := os.ReadFile(h.path)
	if err != nil || bytes.Count(b, []byte("\n")) != 3 {
		t.Errorf("written %q, %v", b, err)
	}
	got := OpenHistory(dir).Last(0)
	if len(got) != 2 || got[1].Seq != 3 {
		t.Errorf("read %+v", got)
	}
}
