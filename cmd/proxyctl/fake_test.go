package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// scenario is how a fake proxyd behaves, as the scripts write it.
type scenario struct {
	Status     []control.Status       `json:"status"` // one for each time it is asked for; the last one stays
	Result     control.Result         `json:"result"` // of any change
	Error      *control.Error         `json:"error"`  // instead of a result
	AfterPolls int                    `json:"after_polls"`
	Never      bool                   `json:"never"` // a change has no end
	History    []control.HistoryEntry `json:"history"`
	Events     []control.HistoryEntry `json:"events"` // that come to whoever follows
	Handover   control.Handover       `json:"handover"`
}

// fake is a proxyd that plays a scenario behind a real control server.
type fake struct {
	scenario
	server *control.Server
	served chan error
	over   chan struct{}

	mu    sync.Mutex
	poll  *sync.Cond
	polls int
	asked strings.Builder
}

// startFake serves a scenario in a runtime directory.
func startFake(dir, text string) (*fake, error) {
	f := &fake{served: make(chan error, 1), over: make(chan struct{})}
	f.poll = sync.NewCond(&f.mu)
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f.scenario); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := control.Listen(control.SocketIn(dir))
	if err != nil {
		return nil, err
	}
	f.server = control.NewServer(control.Config{Service: f, Handover: f.handover})
	go f.serve(l)
	return f, nil
}

// serve ends with close, which waits for it.
func (f *fake) serve(l net.Listener) { f.served <- f.server.Serve(l) }

func (f *fake) close() {
	close(f.over)
	f.mu.Lock()
	f.polls += 1 << 20 // nobody waits any longer
	f.poll.Broadcast()
	f.mu.Unlock()
	_ = f.server.Shutdown(context.Background())
	<-f.served
}

// leaveDead leaves a socket as a killed proxyd does.
func leaveDead(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	l, err := net.Listen("unix", control.SocketIn(dir))
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Close()
}

func (f *fake) handover(context.Context, int) (control.Handover, error) {
	return f.scenario.Handover, nil
}

func (f *fake) waitForPolls(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.polls < n {
		f.poll.Wait()
	}
}

func (f *fake) requests() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked.String()
}

func (f *fake) Status(context.Context) (control.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	f.poll.Broadcast()
	if len(f.scenario.Status) == 0 {
		return control.Status{Service: "web", State: "serving"}, nil
	}
	st := f.scenario.Status[0]
	if len(f.scenario.Status) > 1 {
		f.scenario.Status = f.scenario.Status[1:]
	}
	return st, nil
}

func (f *fake) change(verb string, request any) (control.Result, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return control.Result{}, err
	}
	f.mu.Lock()
	fmt.Fprintf(&f.asked, "%s %s\n", verb, b)
	begun := f.polls
	f.mu.Unlock()
	if f.Never {
		<-f.over
	}
	f.waitForPolls(begun + f.AfterPolls)
	if f.scenario.Error != nil {
		return control.Result{}, f.scenario.Error
	}
	return f.Result, nil
}

func (f *fake) History(_ context.Context, limit int) ([]control.HistoryEntry, error) {
	h := f.scenario.History
	if limit > 0 && limit < len(h) {
		h = h[len(h)-limit:]
	}
	return h, nil
}

func (f *fake) Events(_ context.Context, after uint64) (<-chan control.HistoryEntry, error) {
	ch := make(chan control.HistoryEntry, len(f.scenario.Events))
	for _, e := range f.scenario.Events {
		if e.Seq > after {
			ch <- e
		}
	}
	close(ch)
	return ch, nil
}

func (f *fake) Version(context.Context) (control.VersionInfo, error) {
	return control.VersionInfo{Version: "v9.9.9", Revision: "abc", Modified: true, Go: "go9"}, nil
}

func (f *fake) Stage(_ context.Context, r control.StageRequest) (control.Result, error) {
	return f.change("stage", r)
}
func (f *fake) Promote(_ context.Context, r control.PromoteRequest) (control.Result, error) {
	return f.change("promote", r)
}
func (f *fake) Revert(_ context.Context, r control.RevertRequest) (control.Result, error) {
	return f.change("revert", r)
}
func (f *fake) Retire(_ context.Context, r control.RetireRequest) (control.Result, error) {
	return f.change("retire", r)
}
func (f *fake) Stop(_ context.Context, r control.StopRequest) (control.Result, error) {
	return f.change("stop", r)
}
func (f *fake) Hold(_ context.Context, r control.HoldRequest) (control.Result, error) {
	return f.change("hold", r)
}
func (f *fake) Resume(_ context.Context, r control.ResumeRequest) (control.Result, error) {
	return f.change("resume", r)
}

func (f *fake) Reload(_ context.Context, r control.ReloadRequest) (control.Result, error) {
	return f.change("reload", r)
}
