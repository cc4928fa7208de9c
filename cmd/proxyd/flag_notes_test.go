package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
)

// A disk that does not answer keeps nobody waiting, and a full one does no harm:
// what was noted before stays whole, and the next note is written.
func TestNotesOfFlagsWaitForNoDisk(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "note")
	n := newFlagNotes(hclog.NewNullLogger())
	real := n.write
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	n.put(path, "first")
	n.flush()
	answers, asked := make(chan error), make(chan struct{}, 2)
	n.write = func(path string, text []byte) error {
		asked <- struct{}{}
		if err := <-answers; err != nil {
			return err
		}
		return real(path, text)
	}
	n.put(path, "second") // none of these returns if it waits for the disk
	<-asked
	n.put(path, "third")
	n.put(path, "fourth")
	answers <- unix.ENOSPC
	if got := content(); got != "first" {
		t.Errorf("after a note that could not be written it is %q", got)
	}
	answers <- nil
	n.flush()
	if got := content(); got != "fourth" {
		t.Errorf("the last note is %q", got)
	}
	n.put(path, "fourth") // nothing is new
	n.flush()
	if want := map[string]string{path: "fourth"}; !maps.Equal(n.written, want) || len(n.wanted) > 0 {
		t.Errorf("written %v, wanted %v", n.written, n.wanted)
	}
	n.write = func(string, []byte) error { return errors.New("not to be called") }
	n.forget(path)
	n.flush()
}

// A note that is damaged says nothing.
func TestADamagedNoteOfFlagsChangesNothing(t *testing.T) {
	l, err := activation.Listen("http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, hclog.NewNullLogger())
	if err := s.makeDir(1); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "y", "yes\n"} {
		if err := os.WriteFile(s.flagsPath(1), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(l.FD, true); err != nil {
			t.Fatal(err)
		}
		s.restoreFlags(1, l.FD)
		if flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("%q: flags %x, %v", text, flags, err)
		}
	}
}
