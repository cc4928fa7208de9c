package backend

import (
	"context"
	"net"
	"syscall"
	"testing"
)

// checkedRun is a run of which only the readiness checks want something.
type checkedRun struct {
	addresses map[string]net.Addr
	waiting   func() int // nil: proxyd holds no queue
	command   func() error
	tells     bool
	started   chan struct{} // nil: its start is over
}

func (r *checkedRun) PID() int                       { return 1 }
func (r *checkedRun) Unit() string                   { return "" }
func (r *checkedRun) Addresses() map[string]net.Addr { return r.addresses }
func (r *checkedRun) Done() <-chan struct{}          { return nil }
func (r *checkedRun) Exit() string                   { return "" }
func (r *checkedRun) Clear(context.Context, bool)    {}
func (r *checkedRun) Signal(syscall.Signal) error    { return nil }
func (r *checkedRun) Kill() error                    { return nil }
func (r *checkedRun) LastLines() []string            { return nil }
func (r *checkedRun) Tells() bool                    { return r.tells }
func (r *checkedRun) Notices() <-chan Notice         { return nil }

func (r *checkedRun) Started() <-chan struct{} {
	if r.started == nil {
		over := make(chan struct{})
		close(over)
		return over
	}
	return r.started
}

func (r *checkedRun) Waiting(string) (int, bool) {
	if r.waiting == nil {
		return 0, false
	}
	return r.waiting(), true
}

func (r *checkedRun) Command(context.Context, []string) error { return r.command() }

// listen gives a listener that nobody accepts from, and its address.
func listen(t *testing.T, network, address string) (net.Listener, map[string]net.Addr) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, map[string]net.Addr{"http": l.Addr()}
}
