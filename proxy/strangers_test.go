package proxy

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A program that opens a socket of its own beside the one that it was handed is
// named in the log. It takes nothing from anybody, also where it ends; and the next
// Direct takes the group all the same, as it was a group before.
func TestAStrangerThatJoins(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 5, false)
	var log safeLog
	open := func(before bool) (*Proxy, *Direct, error) {
		var listeners []Listener
		for i, fd := range fds {
			listeners = append(listeners, Listener{Name: "web", FD: fd, Member: i > 0})
		}
		p, err := New(Config{Listeners: listeners})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		d, err := NewDirect(DirectConfig{
			Groups: []Group{{"web", addr, fds}}, Proxy: p, Before: before,
			Log:   hclog.New(&hclog.LoggerOptions{Output: &log}),
			Whose: func(uint32) string { return "a test" },
		})
		if err == nil {
			t.Cleanup(d.Close)
		}
		return p, d, err
	}
	_, d, err := open(false)
	if err != nil {
		t.Fatal(err)
	}
	first := mustLend(t, d, 1)
	mustSteer(t, d, 1)
	strangers := []int{memberAt(t, addr, false), memberAt(t, addr, false)}
	end := func(fd int) { // it listens no more, as where its last holder closes it
		t.Helper()
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
	}
	second := mustLend(t, d, 2)
	mustSteer(t, d, 2)
	eventually(t, "it is said", func() bool { return strings.Count(log.String(), "whose=\"a test\"") == 2 })
	come := func(to int) {
		t.Helper()
		for range 20 {
			c := dialTo(t, addr)
			if at := landed(t, []int{to}); len(at) != 1 {
				t.Fatalf("%d came to the member that is steered to", len(at))
			}
			c.Close()
		}
	}
	come(second)
	mustSteer(t, d, 1)
	come(first)
	if _, _, err := open(false); !errors.Is(err, ErrGroup) {
		t.Errorf("a group that was none of ours before: %v", err)
	}
	_, next, err := open(true)
	if err != nil {
		t.Fatal(err)
	}
	for generation, fd := range map[uint64]int{1: first, 2: second} {
		for m := range fds {
			if fds[m] != fd {
				continue
			}
			if _, err := next.Keep(generation, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustSteer(t, next, 1)
	landed(t, fds) // the checks of those that are kept
	come(first)
	if next.broken != nil || !next.Free() {
		t.Fatalf("no member is lent any more: %v", next.broken)
	}
	third := mustLend(t, next, 3)
	end(strangers[0])
	mustSteer(t, next, 3)
	come(third)
	end(strangers[1])
	mustSteer(t, next, 2)
	come(second)
	eventually(t, "their end is said", func() bool { return strings.Contains(log.String(), "no other sockets are at") })
}

// Where strangers were there first an index is not what it seems. No group is taken
// for one of before then, whatever is said of it.
func TestStrangersThatWereThereFirst(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 5, false)
	fds = fds[1:]
	var listeners []Listener
	for i, fd := range fds {
		listeners = append(listeners, Listener{Name: "web", FD: fd, Member: i > 0})
	}
	p, err := New(Config{Listeners: listeners})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d, err := NewDirect(DirectConfig{Groups: []Group{{"web", addr, fds}}, Proxy: p, Before: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Keep(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.Steer(1); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(d.broken, ErrGroup) {
		t.Errorf("the indexes are taken for right: %v", d.broken)
	}
}

func mustSteer(t *testing.T, d *Direct, generation uint64) {
	t.Helper()
	if err := d.Steer(generation); err != nil {
		t.Fatal(err)
	}
}

// safeLog is a log that is read while it is written.
type safeLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *safeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
