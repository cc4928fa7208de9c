package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer is how much of an answer a client reads.
const maxAnswer = 16 << 20

// Client speaks to the proxyd behind one control socket. It is a Service, so
// what is said there holds here. How long it waits is up to each call's context;
// when that ends, what was asked for goes on. Its methods may be called from
// several goroutines. It holds nothing open between calls.
//
// Every error is an *Error, except that of a context which was cancelled.
type Client struct {
	path string
	http *http.Client
}

var _ Service = (*Client)(nil)

// NewClient makes a client of the socket at path. Whether someone answers there
// is seen by the first call.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // one connection a call: nothing stays behind on either side
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
	}}
	return c
}

// Path is the control socket's.
func (c *Client) Path() string { return c.path }

// dialAgain is how long to wait before a full queue is tried again.
const dialAgain = 20 * time.Millisecond

// dial connects to a control socket. A full queue is waited out: connect(2) says
// EAGAIN then, which does not mean that nobody is there.
func dial(ctx context.Context, path string) (net.Conn, error) {
	if err := checkSocketPath(path); err != nil {
		return nil, &Error{Code: Usage, Message: "control socket: " + err.Error()}
	}
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		again := time.NewTimer(dialAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err()
		}
	}
}

// Status asks for the state of the service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	if err == nil && st.Schema != Schema {
		err = &Error{Code: Failed, Message: fmt.Sprintf("proxyd answers with schema %d, this program reads %d", st.Schema, Schema),
			Hint: "use the proxyctl that came with the running proxyd"}
	}
	return st, err
}

// History asks for the last entries; see Service.
func (c *Client) History(ctx context.Context, limit int) ([]HistoryEntry, error) {
	var doc historyDocument
	err := c.call(ctx, http.MethodGet, "/v1/history?limit="+strconv.Itoa(limit), nil, &doc)
	return doc.Entries, err
}

// Version asks which build the running proxyd is.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	var v VersionInfo
	return v, c.call(ctx, http.MethodGet, "/v1/version", nil, &v)
}

// Stage asks for a generation to be started and proven.
func (c *Client) Stage(ctx context.Context, r StageRequest) (Result, error) {
	return c.change(ctx, "/v1/stage", r)
}

// Promote asks for a switch to a generation.
func (c *Client) Promote(ctx context.Context, r PromoteRequest) (Result, error) {
	return c.change(ctx, "/v1/promote", r)
}

// Revert asks to go back.
func (c *Client) Revert(ctx context.Context, r RevertRequest) (Result, error) {
	return c.change(ctx, "/v1/revert", r)
}

// Retire asks to end the standby.
func (c *Client) Retire(ctx context.Context, r RetireRequest) (Result, error) {
	return c.change(ctx, "/v1/retire", r)
}

// Stop asks to end one generation.
func (c *Client) Stop(ctx context.Context, r StopRequest) (Result, error) {
	return c.change(ctx, "/v1/stop", r)
}

// Hold asks to keep new connections waiting.
func (c *Client) Hold(ctx context.Context, r HoldRequest) (Result, error) {
	return c.change(ctx, "/v1/hold", r)
}

// Resume asks to end a hold.
func (c *Client) Resume(ctx context.Context, r ResumeRequest) (Result, error) {
	return c.change(ctx, "/v1/resume", r)
}

// Reload asks for the config to be read again.
func (c *Client) Reload(ctx context.Context, r ReloadRequest) (Result, error) {
	return c.change(ctx, "/v1/reload", r)
}

// Events follows the history. The channel must be read until it is closed; a
// goroutine feeds it, which ends with ctx or with the connection.
func (c *Client) Events(ctx context.Context, after uint64) (<-chan HistoryEntry, error) {
	res, err := c.send(ctx, http.MethodGet, "/v1/events?follow=1&after="+strconv.FormatUint(after, 10), nil)
	if err != nil {
		return nil, err
	}
	entries := make(chan HistoryEntry)
	go feed(ctx, res.Body, entries)
	return entries, nil
}

// feed hands on the lines of a stream and closes entries and body. It ends with
// the stream or with ctx, which also ends a read; the reader of entries waits
// for it.
func feed(ctx context.Context, body io.ReadCloser, entries chan<- HistoryEntry) {
	defer close(entries)
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e HistoryEntry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			return
		}
		select {
		case entries <- e:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Client) change(ctx context.Context, path string, request any) (Result, error) {
	var res Result
	return res, c.call(ctx, http.MethodPost, path, request, &res)
}

// call sends one request and reads the whole answer into `into`.
func (c *Client) call(ctx context.Context, method, path string, request, into any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = Encode(request); err != nil {
			return &Error{Code: Failed, Message: err.Error()}
		}
	}
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return c.read(ctx, res, into)
}

// read reads a whole answer.
func (c *Client) read(ctx context.Context, res *http.Response, into any) error {
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, err)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return c.strange(err.Error())
	}
	return nil
}

// send gives an answer with status 200, whose body is the caller's to close, or
// the error that came instead.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://proxyd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Code: Failed, Message: err.Error()}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if err := c.refusal(ctx, res); err != nil {
		res.Body.Close()
		return nil, err
	}
	return res, nil
}

// refusal gives the error that an answer is; nil where it is none.
func (c *Client) refusal(ctx context.Context, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var doc errorDocument
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, err)
	}
	if json.Unmarshal(answer, &doc) != nil || doc.Error == nil || doc.Error.Code == "" {
		return c.strange("HTTP status " + res.Status)
	}
	return doc.Error
}

func (c *Client) strange(why string) error {
	return &Error{Code: Failed, Message: fmt.Sprintf("what answers at %s does not speak proxyd's protocol: %s", c.path, why),
		Hint: "is proxyctl older than proxyd, or the socket another program's?"}
}

// explain says what a failed exchange means for the one who asked.
func (c *Client) explain(ctx context.Context, err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil, os.IsTimeout(err):
		return &Error{Code: Timeout, Message: "proxyd did not answer in time"}
	case isAbsent(err):
		return &Error{Code: NotRunning, Message: "proxyd is not running: nobody answers at " + c.path}
	case isDenied(err):
		return &Error{Code: NotPermitted, Message: fmt.Sprintf("uid %d may not connect to %s", os.Geteuid(), c.path),
			Hint: "root, proxyd's own user and the socket's group may"}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &Error{Code: Failed, Message: fmt.Sprintf("the connection to proxyd was lost before its answer came: %v", err),
		Hint: "what was asked for may have been done: `proxyctl history` tells"}
}

func isAbsent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ECONNREFUSED)
}

func isDenied(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }
