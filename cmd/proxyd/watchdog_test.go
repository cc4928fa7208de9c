package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/proxy"
)

// One loop that stands still is enough for the watchdog to go hungry, and so is a
// supervisor that does not answer. What was slow is fed as soon as it moves.
func TestWatchdogWatchesEveryLoopAndTheSupervisor(t *testing.T) {
	var w watchdog
	for i, c := range []struct {
		answered bool
		turns    []uint64
		want     bool
	}{
		{true, []uint64{1, 1}, true},
		{true, []uint64{2, 5}, true},
		{true, []uint64{3, 5}, false},
		{true, []uint64{3, 6}, true}, // the first has turned since the last ping
		{true, []uint64{3, 7}, false},
		{false, []uint64{4, 8}, false},
		{true, []uint64{4, 8}, true},
	} {
		if got := w.moves(c.answered, c.turns); got != c.want {
			t.Errorf("look %d: %v", i, got)
		}
	}
}

func TestWatchdogPause(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", statusEvery},
		{"2000000", "", time.Second},
		{"2000000", strconv.Itoa(os.Getpid()), time.Second},
		{"2000000", "1", statusEvery},
		{"900000000", "", statusEvery},
		{"-5", "", statusEvery},
		{"many", "", statusEvery},
	} {
		env := map[string]string{"WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid}
		if got := watchdogPause(func(k string) string { return env[k] }); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// How long systemd is asked to wait.
func TestTimeIsWantedWhileSomethingGetsOn(t *testing.T) {
	c := &Config{}
	c.Ready.Deadline, c.Stop.Timeout = Duration(30*time.Second), Duration(20*time.Second)
	began := time.Unix(1000, 0)
	starting := timeForStart(c, began)
	stopped := starting
	stopped.stop(c, began.Add(time.Hour))
	for _, s := range []struct {
		name                  string
		t                     timeWanted
		after                 time.Duration
		ready, stopping, busy bool
		want                  bool
	}{
		{"the first start", starting, 39 * time.Second, false, false, false, true},
		{"one that never gets ready", starting, 41 * time.Second, false, false, false, false},
		{"a promote meanwhile", starting, time.Hour, false, false, true, true},
		{"it serves", starting, 0, true, false, false, false},
		{"a promote while it serves", starting, 0, true, false, true, false},
		{"a stop", stopped, time.Hour + 49*time.Second, true, true, false, true},
		{"a stop that hangs", stopped, time.Hour + 51*time.Second, true, true, true, false},
	} {
		if got := s.t.wanted(began.Add(s.after), s.ready, s.stopping, s.busy); got != s.want {
			t.Errorf("%s: %v", s.name, got)
		}
	}
}

// stuckBackend is a driver and a router that a test can hold up.
type stuckBackend struct {
	backend.Driver
	backend.Router
	mu   sync.Mutex    // held by whoever holds up the router
	boot chan struct{} // the driver's Sweep ends when it is closed
}

func (s *stuckBackend) Sweep(context.Context, []uint64) error { <-s.boot; return nil }
func (s *stuckBackend) Plan(uint64, string) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// Start gets no further until nobody wants it any more.
func (s *stuckBackend) Start(ctx context.Context, _ backend.Launch, _ func(json.RawMessage) error) (backend.Run, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (s *stuckBackend) Release(uint64) {}
func (s *stuckBackend) Close(uint64)   {}
func (s *stuckBackend) Switch(uint64)  {}
func (s *stuckBackend) Seal()          {}
func (s *stuckBackend) Leave()         {}
func (s *stuckBackend) Empty() <-chan struct{} {
	empty := make(chan struct{})
	close(empty)
	return empty
}
func (s *stuckBackend) Counts(uint64) backend.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return backend.Counts{}
}

// told is a daemon with a stuckBackend that tells systemd how it is.
type told struct {
	*daemon
	t    *testing.T
	log  *safeBuffer
	said chan string
}

// tellFor runs it, with a first generation whose start is given ready.
func tellFor(t *testing.T, s *stuckBackend, ready time.Duration) *told {
	t.Helper()
	path, said := listenAsSystemd(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", "")
	d := &told{t: t, log: &safeBuffer{}, said: said}
	logger := hclog.New(&hclog.LoggerOptions{Output: d.log})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var p *proxy.Proxy
	if rawErr := raw.Control(func(fd uintptr) {
		p, err = proxy.New(proxy.Config{Loops: 2, Listeners: []proxy.Listener{{Name: "http", FD: int(fd)}}})
	}); err != nil || rawErr != nil {
		t.Fatal(err, rawErr)
	}
	t.Cleanup(func() { p.Close() })
	dir := t.TempDir()
	store, durable, _, _, err := backend.OpenStore(dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	d.daemon = &daemon{proxy: p, direct: newDirectPath(logger), log: logger}
	config := &Config{}
	config.Ready.Deadline = Duration(ready)
	d.live.Store(config)
	d.supervisor, err = backend.New(backend.Config{
		Driver: s, Router: s, Store: store, Durable: durable, Known: true, History: backend.OpenHistory(dir), Leave: true, Release: "v1",
		Readiness: backend.Readiness{Interval: time.Second, Timeout: time.Second}, Policy: backend.Policy{ReadyDeadline: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.supervisor.Run(ctx) })
	d.background.Add(1)
	go d.tellSystemd(ctx, make(chan struct{}))
	t.Cleanup(func() {
		end()
		running.Wait()
		d.background.Wait()
	})
	return d
}

// hear waits until want is said, so many times; not is what must not be said
// before.
func (d *told) hear(times int, want, not string) {
	d.t.Helper()
	limit := time.After(patience)
	for times > 0 {
		select {
		case got := <-d.said:
			if strings.HasPrefix(got, want) {
				times--
			}
			if not != "" && strings.HasPrefix(got, not) {
				d.t.Fatalf("it says %s", got)
			}
		case <-limit:
			d.t.Fatalf("waited in vain for %s", want)
		}
	}
}

// While it takes over what ran, proxyd asks systemd for time. The watchdog is fed
// as long as the supervisor answers, and what stands still is in the log.
func TestTheWatchdogGoesHungryWithTheSupervisor(t *testing.T) {
	s := &stuckBackend{boot: make(chan struct{})}
	var booted sync.Once
	boot := func() { booted.Do(func() { close(s.boot) }) }
	d := tellFor(t, s, time.Hour)
	defer boot()
	d.hear(3, "EXTEND_TIMEOUT_USEC=60000", "WATCHDOG=1")
	boot()
	d.hear(3, "WATCHDOG=1", "READY=1")
	for i := range 3 {
		func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			await(t, "the complaint", func() bool { return strings.Count(d.log.String(), "stand still") > i })
		}()
		d.hear(1, "WATCHDOG=1", "") // what moves again is fed again
	}
	if !strings.Contains(d.log.String(), "supervisor_answers=false") {
		t.Errorf("the log does not tell what stood still:\n%s", d.log)
	}
}

// A first generation that takes longer than its deadline gets no more time, but
// what the operator asks for meanwhile does.
func TestTimeIsAskedForWhatTheOperatorDoes(t *testing.T) {
	s := &stuckBackend{boot: make(chan struct{})}
	close(s.boot)
	d := tellFor(t, s, -time.Hour) // it is over
	d.hear(1, "EXTEND", "")
	d.hear(5, "WATCHDOG=1", "EXTEND")
	for _, gen := range []uint64{2, 3} {
		answered := make(chan struct{})
		go func() { // ends with the stop below
			defer close(answered)
			_, _ = d.supervisor.Promote(t.Context(), "ann", 0, "v2", 0)
		}()
		d.hear(3, "EXTEND_TIMEOUT_USEC=60000", "READY=1")
		if _, err := d.supervisor.Stop(t.Context(), "ann", gen, backend.StopNow); err != nil {
			t.Fatal(err)
		}
		<-answered
		d.tell("MARK=1")
		d.hear(1, "MARK=1", "")
		d.hear(2, "WATCHDOG=1", "") // a look may have begun before
		d.hear(3, "WATCHDOG=1", "EXTEND")
	}
}
