package process

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOutputIsCopiedInWholeLines(t *testing.T) {
	var writes []string
	o := &output{write: func(b []byte) { writes = append(writes, string(b)) }}
	long := strings.Repeat("x", maxLine)
	for _, s := range []string{"a", "b\r\nc\n\nd", "e\x1b[1m\n", long, "y\n", long + "\n"} {
		o.take([]byte(s))
	}
	// A line that is too long is broken, and nothing of it is lost.
	want := []string{"ab\r\nc\n\n", "de\x1b[1m\n", long + "\ny\n", long + "\n"}
	got := strings.Join(writes, "|")
	if !slices.Equal(writes, want) {
		t.Errorf("wrote %d bytes in %d, want %d: %.80q", len(got), len(writes), len(want), writes)
	}
}

func TestLastLinesAreTwenty(t *testing.T) {
	w := newWorld(t)
	p := w.start(w.spec(1, "sh", "-c", "i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done; printf 'the end'"))
	w.done(p)
	got := p.LastLines()
	if len(got) != 20 || got[0] != "981" || got[18] != "999" || got[19] != "the end" {
		t.Errorf("last lines are %q", got)
	}
	if all := w.output.String(); !strings.HasSuffix(all, "\n999\nthe end\n") || strings.Count(all, "\n") != 1001 {
		t.Errorf("%d lines were copied", strings.Count(all, "\n"))
	}
}

func TestLinesAreCleaned(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï\r":        "plain ünï",
		"tab\tnext":          "tab next",
		"\x1b[2Jx\x00\x7f":   "\ufffd[2Jx\ufffd\ufffd",
		"\xff\xfe":           "\ufffd",
		"c1 \u0085 \u009b":   "c1 \ufffd \ufffd",
		"bidi \u202e\u2066":  "bidi \ufffd\ufffd",
		"lines \u2028\u2029": "lines \ufffd\ufffd",
	} {
		if got := cleanLine([]byte(in)); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
	got := cleanLine([]byte(strings.Repeat("ü", 5000)))
	if len(got) > maxKept || !strings.HasSuffix(got, "ü…") || strings.Contains(got, "\ufffd") {
		t.Errorf("cut to %d bytes: %q", len(got), got[len(got)-10:])
	}
}

func TestFifoIsPrivateAndNew(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mkfifo(w.fifo(1), 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(w.spec(1, "sleep", "1000"))
	after, err := os.Stat(w.fifo(1))
	if err != nil || after.Mode() != os.ModeNamedPipe|0o600 {
		t.Errorf("it is %v (%v)", after.Mode(), err)
	}
}

// blocked is an output that takes nothing until it is released.
type blocked struct {
	once             *sync.Once
	entered, release chan struct{}
}

func (b blocked) Write(p []byte) (int, error) {
	b.once.Do(func() { close(b.entered) })
	<-b.release
	return len(p), nil
}

func TestBlockedOutputDoesNotHideAnExit(t *testing.T) {
	b := blocked{new(sync.Once), make(chan struct{}), make(chan struct{})}
	w := newWorld(t, func(c *Config) { c.Output = b })
	s := w.spec(1, "sh", "-c", `echo one; read x <&3; echo two`)
	end, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	defer other.Close()
	s.Files = []File{{Name: "go", FD: int(end.Fd())}}
	p := w.start(s)
	<-b.entered
	if _, err := other.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	w.done(p)
	close(b.release)
	<-p.out.done
	// What was written while nobody could read is not lost.
	if got := p.LastLines(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("last lines are %q", got)
	}
}

// A descendant that holds the output does not hold up the end.
func TestDescendantMayGoOnWriting(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Output = io.Discard })
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `yes >&1 & echo $! >&3`)
	s.Files = []File{r.file()}
	p := w.start(s)
	writer := watch(t, r.number())
	w.done(p)
	writer.mustLive()
	if err := p.Clear(); err != nil {
		t.Fatal(err)
	}
	writer.mustEnd()
}

func TestProgramMayCloseItsOutput(t *testing.T) {
	w := newWorld(t)
	path := w.fifo(1)
	p := w.start(w.spec(1, "sh", "-c", fmt.Sprintf(`echo one; exec >&- 2>&-; exec >>%s; echo two`, path)))
	w.done(p)
	if got := p.LastLines(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("last lines are %q", got)
	}
}

func TestStatIsParsed(t *testing.T) {
	const rest = " S 10 20 30 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456789 1 2"
	for name, ok := range map[string]bool{"42 (sh)" + rest: true, "42 (a) S 1 (b)" + rest: true, "42 (sh) S 1": false, "": false, "x (sh)" + rest: false, ")(": false} {
		s, err := parseStat([]byte(name))
		if ok != (err == nil) || ok && s != (stat{pid: 42, ppid: 10, pgrp: 20, session: 30, state: 'S', threads: 9, start: 123456789}) {
			t.Errorf("%q is %+v (%v)", name, s, err)
		}
	}
}
