package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// reader is a Writer whose reader takes one Write for each value of reads, and
// everything once that is closed.
type reader struct {
	reads chan struct{}
	mu    sync.Mutex
	took  bytes.Buffer
}

func (r *reader) Write(p []byte) (int, error) {
	<-r.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.took.Write(p)
}

func (r *reader) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.took.String(), "\n"), "\n")
}

func newTestOutlet(patience time.Duration) (*outlet, *reader) {
	r := &reader{reads: make(chan struct{})}
	o := newOutlet(r, patience, func(n int) []byte { return fmt.Appendf(nil, "%d lost\n", n) })
	o.room = 100
	return o, r
}

func tenBytes(i int) string { return fmt.Sprintf("line %04d\n", i) }

// A reader that reads, however slowly, gets every line in order, and who writes
// waits for it.
func TestOutletLosesNothingWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newTestOutlet(time.Second)
		const lines = 500
		go func() { // ends with its last line
			for range lines {
				time.Sleep(900 * time.Millisecond) // of the bubble's own clock
				r.reads <- struct{}{}
			}
			close(r.reads)
		}()
		var want []string
		for i := range lines {
			_, _ = o.Write([]byte(tenBytes(i)))
			want = append(want, strings.TrimSpace(tenBytes(i)))
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		o.close()
		if got := r.lines(); strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("it got %d lines: %q", len(got), got)
		}
	})
}

// With a reader that stands still who writes goes on, and the reader is told
// what it missed, in its place.
func TestOutletDropsWhatIsNotRead(t *testing.T) {
	for _, patience := range []time.Duration{0, time.Second} {
		t.Run(patience.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, r := newTestOutlet(patience)
				began := time.Now()
				for i := range 30 {
					_, _ = o.Write([]byte(tenBytes(i)))
				}
				if waited := time.Since(began); waited != patience {
					t.Errorf("who wrote waited %s, with a patience of %s", waited, patience)
				}
				for range 3 { // seven lines wait still: more than half
					r.reads <- struct{}{}
				}
				synctest.Wait()
				_, _ = o.Write([]byte("two\nlines\n"))
				for range 2 {
					r.reads <- struct{}{}
				}
				synctest.Wait()
				_, _ = o.Write([]byte("after\n"))
				close(r.reads)
				o.close()
				var want []string
				for i := range 10 {
					want = append(want, strings.TrimSpace(tenBytes(i)))
				}
				want = append(want, "22 lost", "after")
				if got := r.lines(); strings.Join(got, ",") != strings.Join(want, ",") {
					t.Errorf("it got %q", got)
				}
			})
		})
	}
}

// What was lost last is told of without a further line.
func TestOutletTellsOfTheLastLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newTestOutlet(0)
		for i := range 12 {
			_, _ = o.Write([]byte(tenBytes(i)))
		}
		close(r.reads)
		synctest.Wait()
		if got := r.lines(); len(got) != 11 || got[10] != "2 lost" {
			t.Errorf("it got %q", got)
		}
		o.close()
	})
}

// What is longer than all the room is no reason to wait for ever.
func TestOutletTakesALongLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newTestOutlet(0)
		close(r.reads)
		long := strings.Repeat("x", 1000)
		_, _ = o.Write([]byte(long + "\n"))
		o.close()
		if got := r.lines(); len(got) != 1 || got[0] != long {
			t.Errorf("it got %q", got)
		}
	})
}

// The end is not kept by a reader that stands still, and what comes after it is
// not written.
func TestOutletEndsWithoutItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, r := newTestOutlet(time.Second)
		_, _ = o.Write([]byte("one\n"))
		began := time.Now()
		o.close()
		if waited := time.Since(began); waited != outletGrace {
			t.Errorf("it waited %s", waited)
		}
		_, _ = o.Write([]byte("late\n"))
		close(r.reads) // else the writer's goroutine would be left over, which fails the test
		<-o.done
		if got := r.lines(); got[0] != "one" || strings.Contains(strings.Join(got, ","), "late") {
			t.Errorf("it got %q", got)
		}
	})
}

// A full pipe on stdout and stderr that nobody reads: proxyd serves, promotes,
// answers and ends as ever, and so do generations that write a lot. Read at last,
// the pipe tells that lines are missing.
func TestNobodyReadsWhatProxydWrites(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fillPipe(t, w)
	exe := self(t, "")[0]
	d := newDaemon(t, setup{command: []string{"/bin/sh", "-c",
		`yes "a generation that has a lot to say" | head -c 3000000; exec "$0" backend serve`, exe}})
	d.speaksTo = w
	d.startServing()
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	if out := d.mustCtl("revert"); !strings.Contains(out, "still ran") {
		t.Errorf("revert: %s", out)
	}
	d.stop()
	d.cmd = nil // ended, and nothing is left of it

	d.startServing()
	d.mustCtl("promote", "v3")
	read := &safeBuffer{}
	copied := make(chan struct{})
	go func() { // ends with the pipe's last writer, which is w
		defer close(copied)
		_, _ = read.b.ReadFrom(r)
	}()
	d.stop()
	d.cmd = nil
	w.Close()
	<-copied
	if !strings.Contains(read.String(), "lines of generations were lost") {
		t.Error("it does not tell that lines were lost")
	}
	if !strings.Contains(read.String(), "promoted") {
		t.Error("the log itself is lost")
	}
}

// A reader that goes away, such as a tee that was ended, does not take proxyd
// with it.
func TestTheReaderGoesAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ignored := filepath.Join(shortTempDir(t), "ignored")
	d := newDaemon(t, setup{command: []string{"/bin/sh", "-c",
		`echo a generation speaks; grep SigIgn /proc/$$/status > "$1"; exec "$0" backend serve`, self(t, "")[0], ignored}})
	d.speaksTo = w
	r.Close()
	d.startServing()
	d.mustCtl("promote", "v2")
	d.mustAnswer("v2")
	mask, err := os.ReadFile(ignored)
	if err != nil || strings.TrimSpace(string(mask)) != "SigIgn:\t0000000000000000" {
		t.Errorf("generations ignore signals: %q, %v", mask, err)
	}
}

// fillPipe writes until there is no room.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	conn, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		page := bytes.Repeat([]byte("x"), 4095)
		for _, p := range [][]byte{append(page, '\n'), {'\n'}} {
			for {
				if _, err := unix.Write(int(fd), p); err == syscall.EAGAIN {
					break
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
