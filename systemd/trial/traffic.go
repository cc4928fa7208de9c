package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// traffic keeps requests going and fails its test at the first that is not
// answered. Some of its clients keep their connection.
type traffic struct {
	t       *testing.T
	url     string
	done    atomic.Int64
	failed  atomic.Int64
	cut     atomic.Int64 // ended in the middle, where relayed allows that
	relayed atomic.Bool  // connections may end in the middle, as their relay is killed
	first   atomic.Pointer[error]
	clients sync.WaitGroup
	cancel  context.CancelFunc
}

// startTraffic runs clients with a connection for each request, and others that
// keep theirs.
func startTraffic(t *testing.T, address string, fresh, keep int) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &traffic{t: t, url: "http://" + address + "/", cancel: cancel}
	for i := range fresh + keep {
		l.clients.Add(1)
		go l.client(ctx, i < fresh)
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
			if l.relayed.Load() && endedInTheMiddle(err) {
				l.cut.Add(1)
				continue
			}
			l.failed.Add(1)
			l.first.CompareAndSwap(nil, &err)
			continue
		}
		l.done.Add(1)
	}
}

// endedInTheMiddle tells whether a connection that was made ended, rather than
// that none was made.
func endedInTheMiddle(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.HasSuffix(err.Error(), "http: server closed idle connection") // net/http's word for an end before the request
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
