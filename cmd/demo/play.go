package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

var begun = time.Now()

// say prints one line with the time since the start.
func say(format string, a ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, a...))
}

// show is how long the load runs on between two steps, for a person to see.
// Tests have no eyes.
var show = 1500 * time.Millisecond

// play goes through the acts. Any request that fails, any answer of the wrong
// release after a switch, and any exit code that is not the promised one is an
// error.
func play(ctx context.Context, s *service) error {
	say("proxyd serves %s, generation 1 runs release v1", s.url)
	l := startLoad(ctx, s.url)
	defer l.stop()
	d := startDownload(ctx, s.url)
	defer d.stop()
	say("live load: %d clients that keep their connection, %d that take a new one for each request", keepAliveClients, freshClients)
	say("a long download of %d pieces begins on v1", downloadPieces)

	acts := []struct {
		args   []string
		exit   int
		answer string
		tell   string
	}{
		{[]string{"promote", "v2"}, 0, "v2", "v2 was started beside v1, proven, and made current"},
		{[]string{"revert"}, 0, "v1", "back to v1, which was still running"},
		{[]string{"promote", "v3"}, 5, "v1", "v3 never became ready: refused, and no client noticed"},
		{[]string{"promote", "v2"}, 0, "v2", "and v2 once more"},
	}
	for _, act := range acts {
		if err := pause(ctx, show); err != nil {
			return err
		}
		say("%d requests done, %d failed; answered by: %s", l.done.Load(), l.failed.Load(), l.take())
		code, err := s.proxyctl(ctx, act.args...)
		if err != nil {
			return err
		}
		if code != act.exit {
			return fmt.Errorf("proxyctl %v exited with %d, not %d", act.args, code, act.exit)
		}
		if err := expect(s.url, act.answer); err != nil {
			return err
		}
		fmt.Println()
		say("%s; a new connection is answered by %s", act.tell, act.answer)
		say("the download goes on: %d of %d pieces", d.pieces.Load(), downloadPieces)
	}
	if err := finish(ctx, s, d); err != nil {
		return err
	}
	l.stop()
	say("%d requests done, %d failed", l.done.Load(), l.failed.Load())
	if l.failed.Load() > 0 {
		return fmt.Errorf("%d requests failed, the first with: %w", l.failed.Load(), l.firstError)
	}
	fmt.Print(farewell)
	return nil
}

// finish waits for the long download on the old generation.
func finish(ctx context.Context, s *service, d *longDownload) error {
	if code, err := s.proxyctl(ctx, "status"); err != nil || code != 0 {
		return errors.Join(fmt.Errorf("proxyctl status exited with %d", code), err)
	}
	fmt.Println()
	say("generation 1 drains: it ends no connection, it waits for the download")
	select {
	case <-d.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.err != nil {
		return fmt.Errorf("long download: %w", d.err)
	}
	say("the download finished on generation 1: all %d pieces, in order", d.pieces.Load())
	return nil
}

// expect asks over new connections and wants each answered by release.
func expect(url, release string) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 20 {
		got, err := ask(c, url)
		if err != nil {
			return err
		}
		if got != release {
			return fmt.Errorf("a new connection was answered by %s, not %s", got, release)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const farewell = `
Nothing failed. To try it with a service of your own:

  go install ./cmd/proxyd ./cmd/proxyctl
  proxyd --name web --listen 127.0.0.1:8080 --release v1 -- python3 -m http.server {port} --bind 127.0.0.1 &
  proxyctl -s web status
  proxyctl -s web promote v2
  proxyctl -s web revert
`
