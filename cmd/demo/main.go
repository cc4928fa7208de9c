// Demo shows the whole dance on this machine, in under a minute: it builds the
// real proxyd and proxyctl, puts a small HTTP service behind them, keeps live
// load on it, and promotes, reverts and refuses releases while a long download
// runs on. It exits with 0 only if not one request failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// timeLimit bounds the whole demo, builds included.
const timeLimit = 3 * time.Minute

func main() {
	if len(os.Args) > 2 && os.Args[1] == "backend" {
		if err := runBackend(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run plays in a directory of its own that is gone afterwards.
func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "proxyd-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say("building proxyd and proxyctl")
	if err := build(ctx, dir); err != nil {
		return err
	}
	s, err := startService(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return play(ctx, s)
}

// build makes the two programs as a newcomer's own `go build` would.
func build(ctx context.Context, dir string) error {
	for _, name := range []string{"proxyd", "proxyctl"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), "github.com/seed8fae2174/proxyd/cmd/"+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
