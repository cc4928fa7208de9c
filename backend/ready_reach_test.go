package backend

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// reachedRun hands out its connections itself.
type reachedRun struct {
	checkedRun
	reach func(ctx context.Context, listener string) (net.Conn, bool, error)
}

func (r *reachedRun) Reach(ctx context.Context, listener string) (net.Conn, bool, error) {
	return r.reach(ctx, listener)
}

// Where a run's address is shared with other generations, the checks are made
// over the connections that it gives.
func TestChecksGoWhereTheRunReaches(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler()) // who has the address
	defer other.Close()
	mine := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer mine.Close()
	reached := ""
	run := &reachedRun{checkedRun: checkedRun{addresses: map[string]net.Addr{"http": other.Listener.Addr()}}}
	run.reach = func(ctx context.Context, listener string) (net.Conn, bool, error) {
		reached = listener
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", mine.Listener.Addr().String())
		return conn, true, err
	}
	for _, check := range []Check{CheckHTTP, CheckConnect} {
		p := newProof(Readiness{Check: check, Path: "/", Timeout: time.Minute, Interval: 1}, run)
		if err := p.try(t.Context()); err != nil || reached != "http" {
			t.Errorf("%s: %v, reached %q", check, err, reached)
		}
		reached = ""
	}
	refused := errors.New("no way there")
	run.reach = func(context.Context, string) (net.Conn, bool, error) { return nil, true, refused }
	if err := newProof(Readiness{Check: CheckConnect, Timeout: time.Minute, Interval: 1}, run).try(t.Context()); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	run.reach = func(context.Context, string) (net.Conn, bool, error) { return nil, false, nil }
	if err := newProof(Readiness{Check: CheckHTTP, Path: "/", Timeout: time.Minute, Interval: 1}, run).try(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("over its own address: %v", err)
	}
}
