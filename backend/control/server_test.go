package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStatusDocument(t *testing.T) {
	since := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	f := &fake{statusFn: func(context.Context) (Status, error) {
		return Status{Service: "web", State: "serving", Current: 3, Previous: 2,
			Listeners: []Listener{{Name: "http", Address: "127.0.0.1:8080", Path: "relay", Source: "systemd"}},
			Generations: []Generation{{ID: 3, Release: "v2", State: "current", InFlight: 12, Accepted: 1034,
				BytesFromClients: 1, BytesToClients: 1, PID: 4242, Since: since}}}, nil
	}}
	_, path := serve(t, Config{Service: f})
	res, err := curl(path).Get("http://proxyd/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	const want = `{"schema":1,"service":"web","state":"serving","current":3,"previous":2,` +
		`"listeners":[{"name":"http","address":"127.0.0.1:8080","path":"relay","source":"systemd"}],` +
		`"generations":[{"id":3,"release":"v2","state":"current","in_flight":12,"accepted":1034,"connect_failures":0,` +
		`"bytes_from_clients":1,"bytes_to_clients":1,"pid":4242,"unit":"","since":"2026-01-02T15:04:05Z","drain_deadline":null,"reason":""}]}` + "\n"
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNothingIsNeverNull(t *testing.T) {
	_, path := serve(t, Config{Service: &fake{}})
	for _, p := range []string{"/v1/status", "/v1/history"} {
		res, err := curl(path).Get("http://proxyd" + p)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if strings.Contains(string(body), "null") {
			t.Errorf("%s: %s", p, body)
		}
	}
}

func TestEveryRequestArrives(t *testing.T) {
	f := &fake{}
	_, path := serve(t, Config{Service: f})
	c, ctx := NewClient(path), context.Background()
	by := (&conn{uid: uid()}).name()
	calls := []struct {
		want any
		call func() (Result, error)
	}{
		{StageRequest{Release: "v1", By: by}, func() (Result, error) { return c.Stage(ctx, StageRequest{Release: "v1", By: "forged"}) }},
		{StageRequest{By: by}, func() (Result, error) { return c.Stage(ctx, StageRequest{}) }},
		{PromoteRequest{Release: "v1", IfCurrent: 3, By: by}, func() (Result, error) {
			return c.Promote(ctx, PromoteRequest{Release: "v1", IfCurrent: 3})
		}},
		{PromoteRequest{Generation: 1<<64 - 1, By: by}, func() (Result, error) {
			return c.Promote(ctx, PromoteRequest{Generation: 1<<64 - 1})
		}},
		{RevertRequest{To: 2, By: by}, func() (Result, error) { return c.Revert(ctx, RevertRequest{To: 2}) }},
		{RetireRequest{By: by}, func() (Result, error) { return c.Retire(ctx, RetireRequest{}) }},
		{StopRequest{Generation: 2, Mode: StopKill, By: by}, func() (Result, error) {
			return c.Stop(ctx, StopRequest{Generation: 2, Mode: StopKill})
		}},
		{HoldRequest{Max: Duration(90 * time.Second), By: by}, func() (Result, error) {
			return c.Hold(ctx, HoldRequest{Max: Duration(90 * time.Second)})
		}},
		{ReloadRequest{By: by}, func() (Result, error) { return c.Reload(ctx, ReloadRequest{}) }},
		{ResumeRequest{By: by}, func() (Result, error) { return c.Resume(ctx, ResumeRequest{}) }},
	}
	for i, call := range calls {
		res, err := call.call()
		if err != nil || res.Generation != 7 || res.TookMS != 5 {
			t.Errorf("%#v: %+v, %v", call.want, res, err)
		}
		if got := f.requests(); len(got) != i+1 || !reflect.DeepEqual(got[i], call.want) {
			t.Fatalf("arrived: %#v, want %#v", got, call.want)
		}
	}
	if v, err := c.Version(ctx); err != nil || v.Version != "v9" {
		t.Errorf("version: %+v, %v", v, err)
	}
	f.entries = []HistoryEntry{{Seq: 1, Event: "promoted", Generation: 3, Release: "v2", From: 2, By: "root"}}
	if h, err := c.History(ctx, 5); err != nil || !reflect.DeepEqual(h, f.entries) || f.lastLimit != 5 {
		t.Errorf("history: %+v, %v, limit %d", h, err, f.lastLimit)
	}
}

func TestRefusals(t *testing.T) {
	f := &fake{}
	_, path := serve(t, Config{Service: f})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // in the message
	}{
		{"GET", "/", "", 404, `"/"`},
		{"GET", "/v1/status/", "", 404, `"/v1/status/"`},
		{"GET", "/v1/../v1/stage", "", 404, ".."},
		{"GET", "/v1/stage", "", 405, "takes POST"},
		{"POST", "/v1/status", "{}", 405, "takes GET"},
		{"HEAD", "/v1/status", "", 405, ""},
		{"GET", "/v1/status?verbose=1", "", 400, `unknown key "verbose"`},
		{"GET", "/v1/history?limit=x", "", 400, `limit: want a whole number, got "x"`},
		{"GET", "/v1/history?limit=1&limit=2", "", 400, `"limit" is given twice`},
		{"GET", "/v1/events?follow=yes", "", 400, `follow: want 0 or 1, got "yes"`},
		{"GET", "/v1/status?%zz", "", 400, "query"},
		{"POST", "/v1/stage?release=v1", "{}", 400, `unknown key "release"`},
		{"POST", "/v1/stage", `{"relase":"v1"}`, 400, `unknown field "relase"`},
		{"POST", "/v1/stage", `{"Release":"v1"}`, 400, `unknown field "Release"`},
		{"POST", "/v1/stage", `{"by":"root"}`, 400, `unknown field "by"`},
		{"POST", "/v1/stage", `{"release":"v1","release":"v2"}`, 400, `"release" is given twice`},
		{"POST", "/v1/stage", `{"release":1}`, 400, "release: want a string, got 1"},
		{"POST", "/v1/stage", `{"release":"v1"} x`, 400, "something follows"},
		{"POST", "/v1/stage", `{"release":"v1"`, 400, "it ends too early"},
		{"POST", "/v1/stage", `["v1"]`, 400, "not a JSON object"},
		{"POST", "/v1/stage", "{\"release\":\"\xff\"}", 400, "not UTF-8"},
		{"POST", "/v1/stage", `{"release":"a/b"}`, 400, "byte 2 is a slash"},
		{"POST", "/v1/stage", `{"release":".."}`, 400, "means a directory"},
		{"POST", "/v1/promote", `{"release":"a\u001b[2J"}`, 400, "byte 2 is not printable (U+001B)"},
		{"POST", "/v1/promote", `{"release":"v1","generation":3}`, 400, "exclude each other"},
		{"POST", "/v1/promote", `{"generation":-1}`, 400, "generation: want a whole number, not below zero, got -1"},
		{"POST", "/v1/promote", `{"if_current":18446744073709551616}`, 400, "if_current: want a whole number"},
		{"POST", "/v1/stop", ``, 400, "generation is missing"},
		{"POST", "/v1/stop", `{"generation":1,"mode":"later"}`, 400, `mode: "later" is none of`},
		{"POST", "/v1/hold", `{"max":30}`, 400, "max: want a string, got 30"},
		{"POST", "/v1/hold", `{"max":"soon"}`, 400, `"soon" is not a duration`},
		{"POST", "/v1/hold", `{"max":"-1s"}`, 400, "below zero"},
		{"POST", "/v1/stage", `{"release":"` + strings.Repeat("a", maxBody) + `"}`, 413, "more than 65536 bytes"},
	} {
		req, err := http.NewRequest(c.method, "http://proxyd"+c.path, strings.NewReader(c.body))
		if err != nil && c.path != "/v1/status?%zz" {
			t.Fatal(err)
		}
		res, err := curl(path).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var doc errorDocument
		err = json.NewDecoder(res.Body).Decode(&doc)
		res.Body.Close()
		if c.method == "HEAD" {
			err, doc.Error = nil, &Error{Code: Usage}
		}
		if err != nil || doc.Error == nil || doc.Error.Code != Usage || res.StatusCode != c.status || !strings.Contains(doc.Error.Message, c.want) {
			t.Errorf("%s %s %.60s: status %d, %v %+v", c.method, c.path, c.body, res.StatusCode, err, doc.Error)
		}
	}
	if got := f.requests(); len(got) > 0 {
		t.Errorf("something arrived all the same: %#v", got)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	f := &fake{}
	_, path := serve(t, Config{Service: f})
	for _, c := range []struct {
		err  error
		want *Error
		exit int
	}{
		{errors.New("a disk is full"), &Error{Code: Failed, Message: "a disk is full"}, 1},
		{&Error{Code: NotReady, Message: "it died", Hint: "look", Output: []string{"a", "b"}},
			&Error{Code: NotReady, Message: "it died", Hint: "look", Output: []string{"a", "b"}}, 5},
		{&Error{Code: Superseded, Message: "busy"}, &Error{Code: Superseded, Message: "busy"}, 6},
		{&Error{Code: "new_one", Message: "m"}, &Error{Code: "new_one", Message: "m"}, 1},
		{context.DeadlineExceeded, &Error{Code: Timeout, Message: "context deadline exceeded"}, 75},
	} {
		f.changeFn = func(context.Context, any) (Result, error) { return Result{}, c.err }
		_, err := NewClient(path).Promote(context.Background(), PromoteRequest{})
		var e *Error
		if !errors.As(err, &e) || !reflect.DeepEqual(e, c.want) || e.Code.ExitCode() != c.exit {
			t.Errorf("%v came back as %#v", c.err, err)
		}
		if !errors.Is(err, &Error{Code: c.want.Code}) {
			t.Errorf("%v does not match its sentinel", err)
		}
	}
}

// A client that goes away must not take its promote with it.
func TestOperationOutlivesItsClient(t *testing.T) {
	begun, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f := &fake{changeFn: func(ctx context.Context, _ any) (Result, error) {
		close(begun)
		<-goOn
		if ctx.Done() != nil {
			done <- errors.New("its context can end")
		}
		done <- ctx.Err()
		return Result{}, nil
	}}
	_, path := serve(t, Config{Service: f})
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() { // ends with cancel
		_, err := NewClient(path).Promote(ctx, PromoteRequest{})
		failed <- err
	}()
	<-begun
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the client's error: %v", err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The time for sending a request must not bound the wait for its answer.
func TestLongOperationOutlivesTheRequestTimeout(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	f := &fake{statusFn: func(ctx context.Context) (Status, error) {
		close(begun)
		select {
		case <-goOn:
			return Status{}, ctx.Err()
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}}
	_, path := serve(t, Config{Service: f, RequestTimeout: 50 * time.Millisecond})
	got := make(chan error, 1)
	go func() { // ends with goOn
		_, err := NewClient(path).Status(context.Background())
		got <- err
	}()
	<-begun
	// One that begins to send now is cut later than the other would be.
	for _, half := range []string{"GET /v1/sta", "POST /v1/stage HTTP/1.1\r\nHost: proxyd\r\nContent-Length: 9\r\n\r\n{\"re"} {
		slow := connect(t, path)
		io.WriteString(slow, half)
		if _, err := io.Copy(io.Discard, slow); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestPanicIsOneRequestsOnly(t *testing.T) {
	f := &fake{changeFn: func(context.Context, any) (Result, error) { panic("oh") }}
	_, path := serve(t, Config{Service: f})
	c := NewClient(path)
	if _, err := c.Stage(context.Background(), StageRequest{}); err == nil || !strings.Contains(err.Error(), "mistake") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	feed, asked := make(chan HistoryEntry), make(chan uint64, 1)
	ended := make(chan struct{})
	f := &fake{
		entries: []HistoryEntry{{Seq: 1}, {Seq: 2}, {Seq: 3}},
		eventsFn: func(ctx context.Context, after uint64) (<-chan HistoryEntry, error) {
			asked <- after
			context.AfterFunc(ctx, func() { close(ended) })
			return feed, nil
		},
	}
	_, path := serve(t, Config{Service: f})
	ctx, cancel := context.WithCancel(context.Background())
	entries, err := NewClient(path).Events(ctx, 41)
	if err != nil {
		t.Fatal(err)
	}
	if after := <-asked; after != 41 {
		t.Errorf("asked for what is after %d", after)
	}
	for seq := uint64(42); seq < 45; seq++ { // each comes at once, not with the next
		feed <- HistoryEntry{Seq: seq}
		if e := <-entries; e.Seq != seq {
			t.Errorf("got %d, want %d", e.Seq, seq)
		}
	}
	cancel()
	<-ended // the Service is told that nobody follows any more
	if _, ok := <-entries; ok {
		t.Error("an entry after the end")
	}

	res, err := curl(path).Get("http://proxyd/v1/events?after=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text()[:len(`{"seq":2`)])
	}
	if want := []string{`{"seq":2`, `{"seq":3`}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEventsEndWithTheService(t *testing.T) {
	feed := make(chan HistoryEntry, 1)
	feed <- HistoryEntry{Seq: 1}
	close(feed)
	f := &fake{eventsFn: func(context.Context, uint64) (<-chan HistoryEntry, error) { return feed, nil }}
	_, path := serve(t, Config{Service: f})
	entries, err := NewClient(path).Events(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range entries {
		n++
	}
	if n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestShutdownEndsStreamsAndWaitsForOperations(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	f := &fake{
		eventsFn: func(context.Context, uint64) (<-chan HistoryEntry, error) { return make(chan HistoryEntry), nil },
		changeFn: func(context.Context, any) (Result, error) {
			close(begun)
			<-goOn
			return Result{Generation: 3}, nil
		},
	}
	s, path := serve(t, Config{Service: f, RequestTimeout: time.Hour})
	half := connect(t, path)
	io.WriteString(half, "POST /v1/stage HTTP/1.1\r\nHost: proxyd\r\nContent-Length: 9\r\n\r\n{\"re")
	entries, err := NewClient(path).Events(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan Result, 1)
	go func() { // ends with goOn
		r, _ := NewClient(path).Promote(context.Background(), PromoteRequest{})
		answered <- r
	}()
	<-begun
	shut := make(chan error, 1)
	go func() { shut <- s.Shutdown(context.Background()) }() // ends with goOn
	for range entries {                                      // closed by Shutdown
	}
	io.Copy(io.Discard, half) // ends: cut, maybe with a reset
	select {
	case err := <-shut:
		t.Fatalf("shut down before the promote was answered: %v", err)
	default:
	}
	close(goOn)
	if err := <-shut; err != nil {
		t.Error(err)
	}
	if r := <-answered; r.Generation != 3 {
		t.Errorf("the promote was answered with %+v", r)
	}
	if _, err := NewClient(path).Status(context.Background()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	f := &fake{changeFn: func(context.Context, any) (Result, error) {
		close(begun)
		<-goOn
		return Result{}, nil
	}}
	path := t.TempDir() + "/c.sock"
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Service: f})
	go s.Serve(l) // ends with Shutdown; goleak waits for it
	failed := make(chan error, 1)
	go func() { // ends when its connection is cut
		_, err := NewClient(path).Promote(context.Background(), PromoteRequest{})
		failed <- err
	}()
	<-begun
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(over); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	var e *Error
	if err := <-failed; !errors.As(err, &e) || e.Code != Failed || !strings.Contains(e.Hint, "may have been done") {
		t.Errorf("the client: %v", err)
	}
	close(goOn)
}

// connect gives a bare connection that is closed with the test.
func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
