package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// traffic keeps requests going and fails its test at the first that is not
// answered. Half of its clients keep their connection.
type traffic struct {
	t       *testing.T
	url     string
	done    atomic.Int64
	failed  atomic.Int64
	first   atomic.Pointer[error]
	clients sync.WaitGroup
	cancel  context.CancelFunc
}

const trafficClients = 8

func startTraffic(t *testing.T, address string) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &traffic{t: t, url: "http://" + address + "/", cancel: cancel}
	for i := range trafficClients {
		l.clients.Add(1)
		go l.client(ctx, i%2 == 0)
	}
	t.Cleanup(l.stop)
	return l
}

// client sends request after request until ctx ends; stop waits for it.
func (l *traffic) client(ctx context.Context, fresh bool) {
	defer l.clients.Done()
	transport := &http.Transport{DisableKeepAlives: fresh}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: patience}
	for ctx.Err() == nil {
		if err := l.request(c); err != nil {
			l.failed.Add(1)
			l.first.CompareAndSwap(nil, &err)
			continue
		}
		l.done.Add(1)
	}
}

func (l *traffic) request(c *http.Client) error {
	resp, err := c.Get(l.url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status)
	case !strings.HasPrefix(string(body), "v"):
		return fmt.Errorf("answered with %q", body)
	}
	return nil
}

// runFor waits until n more requests were done.
func (l *traffic) runFor(n int64) {
	l.t.Helper()
	until := l.done.Load() + n
	await(l.t, "the load to go on", func() bool { return l.done.Load() >= until || l.failed.Load() > 0 })
	l.check()
}

// check fails the test if any request failed.
func (l *traffic) check() {
	l.t.Helper()
	if n := l.failed.Load(); n > 0 {
		l.t.Fatalf("%d of %d requests failed, the first with: %v", n, n+l.done.Load(), *l.first.Load())
	}
}

func (l *traffic) stop() {
	l.cancel()
	l.clients.Wait()
}

// drip reads a slow download in the background.
type drip struct {
	lines atomic.Int64
	ended chan struct{}
	err   error
	when  time.Time
}

func startDrip(t *testing.T, address string, lines int, release string) *drip {
	t.Helper()
	d := &drip{ended: make(chan struct{})}
	go d.run(fmt.Sprintf("http://%s/drip?n=%d", address, lines), lines, release)
	await(t, "the first line of the download", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("download: %v", d.err)
		default:
		}
		return d.lines.Load() > 0
	})
	return d
}

// run ends with the download.
func (d *drip) run(url string, lines int, release string) {
	defer close(d.ended)
	d.err = d.read(url, lines, release)
	d.when = time.Now()
}

func (d *drip) read(url string, lines int, release string) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for i := range lines {
		var got string
		var n int
		if _, err := fmt.Fscanln(resp.Body, &got, &n); err != nil {
			return fmt.Errorf("line %d: %w", i, err)
		}
		if got != release || n != i {
			return fmt.Errorf("line %d is %q %d", i, got, n)
		}
		d.lines.Add(1)
	}
	return nil
}
