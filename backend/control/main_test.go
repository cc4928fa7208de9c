package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package where a goroutine or a descriptor is left over.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
		if after := descriptors(); after != before {
			println("descriptors before and after:", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() int {
	// The first poll makes the runtime's own epoll descriptors, which stay.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// fake is a Service whose methods a test sets; the rest do nothing. asked keeps
// every request that would change something.
type fake struct {
	statusFn  func(context.Context) (Status, error)
	eventsFn  func(context.Context, uint64) (<-chan HistoryEntry, error)
	changeFn  func(ctx context.Context, request any) (Result, error)
	entries   []HistoryEntry
	mu        sync.Mutex
	asked     []any
	lastLimit int
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	if f.statusFn != nil {
		return f.statusFn(ctx)
	}
	return Status{Service: "web", State: "serving"}, nil
}

func (f *fake) History(_ context.Context, limit int) ([]HistoryEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastLimit = limit
	return f.entries, nil
}

func (f *fake) Events(ctx context.Context, after uint64) (<-chan HistoryEntry, error) {
	if f.eventsFn != nil {
		return f.eventsFn(ctx, after)
	}
	return nil, errors.New("no events")
}

func (f *fake) Version(context.Context) (VersionInfo, error) {
	return VersionInfo{Version: "v9"}, nil
}

func (f *fake) change(ctx context.Context, r any) (Result, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	if f.changeFn != nil {
		return f.changeFn(ctx, r)
	}
	return Result{Generation: 7, TookMS: 5}, nil
}

func (f *fake) requests() []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]any(nil), f.asked...)
}

func (f *fake) Stage(ctx context.Context, r StageRequest) (Result, error) { return f.change(ctx, r) }
func (f *fake) Promote(ctx context.Context, r PromoteRequest) (Result, error) {
	return f.change(ctx, r)
}
func (f *fake) Revert(ctx context.Context, r RevertRequest) (Result, error) { return f.change(ctx, r) }
func (f *fake) Retire(ctx context.Context, r RetireRequest) (Result, error) { return f.change(ctx, r) }
func (f *fake) Stop(ctx context.Context, r StopRequest) (Result, error)     { return f.change(ctx, r) }
func (f *fake) Hold(ctx context.Context, r HoldRequest) (Result, error)     { return f.change(ctx, r) }
func (f *fake) Resume(ctx context.Context, r ResumeRequest) (Result, error) { return f.change(ctx, r) }

func (f *fake) Reload(ctx context.Context, r ReloadRequest) (Result, error) { return f.change(ctx, r) }

// serve runs a Server over cfg until the test ends and gives its socket's path.
// prepare may change the Server before it runs.
func serve(t *testing.T, cfg Config, prepare ...func(*Server)) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg)
	for _, p := range prepare {
		p(s)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }() // ends with Shutdown; the cleanup waits for it
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, path
}

// curl is an HTTP client without any knowledge of the protocol.
func curl(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}
