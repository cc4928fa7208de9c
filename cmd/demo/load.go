package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load keeps requests going: some clients keep their connection, the others
// take a new one for each request. Its counts may be read at any time.
type load struct {
	url    string
	done   atomic.Int64
	failed atomic.Int64

	mu         sync.Mutex
	byRelease  map[string]int64
	firstError error

	clients sync.WaitGroup
	cancel  context.CancelFunc
}

const (
	keepAliveClients = 4
	freshClients     = 4
	requestPause     = 2 * time.Millisecond // the load is bounded: a demo, not a benchmark
)

func startLoad(ctx context.Context, url string) *load {
	l := &load{url: url, byRelease: map[string]int64{}}
	ctx, l.cancel = context.WithCancel(ctx)
	for i := range keepAliveClients + freshClients {
		l.clients.Add(1)
		go l.client(ctx, i >= keepAliveClients)
	}
	return l
}

// client sends one request after the other until ctx ends; stop waits for it.
func (l *load) client(ctx context.Context, fresh bool) {
	defer l.clients.Done()
	transport := &http.Transport{DisableKeepAlives: fresh}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	pause := time.NewTicker(requestPause)
	defer pause.Stop()
	for {
		release, err := ask(c, l.url)
		l.count(release, err)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// ask sends one request and gives the release that answered.
func ask(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered with %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

func (l *load) count(release string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed.Add(1)
		if l.firstError == nil {
			l.firstError = err
		}
		return
	}
	l.done.Add(1)
	l.byRelease[release]++
}

// take gives what each release answered since the last call.
func (l *load) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for _, r := range slices.Sorted(maps.Keys(l.byRelease)) {
		parts = append(parts, fmt.Sprintf("%s %d", r, l.byRelease[r]))
	}
	clear(l.byRelease)
	return strings.Join(parts, ", ")
}

func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
}

// longDownload is one download that runs through everything.
type longDownload struct {
	pieces atomic.Int64
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // once ended
}

func startDownload(ctx context.Context, url string) *longDownload {
	d := &longDownload{ended: make(chan struct{})}
	ctx, d.cancel = context.WithCancel(ctx)
	go d.run(ctx, url)
	return d
}

// stop ends it, where it has not ended by itself.
func (d *longDownload) stop() {
	d.cancel()
	<-d.ended
}

// run ends with the download; ended tells.
func (d *longDownload) run(ctx context.Context, url string) {
	defer close(d.ended)
	d.err = d.read(ctx, url)
}

func (d *longDownload) read(ctx context.Context, url string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/download", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range downloadPieces {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("cut after %d of %d pieces: %w", i, downloadPieces, err)
		}
		if want := downloadPiece(i); line != want {
			return fmt.Errorf("got %q where %q was sent", line, want)
		}
		d.pieces.Add(1)
	}
	return nil
}
