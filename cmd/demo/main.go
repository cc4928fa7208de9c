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

func main() { os.Exit(dispatch(os.Args[1:])) }

// dispatch plays the demo, or the part in it that a process of its own has, and
// gives the exit code.
func dispatch(args []string) int {
	var err error
	switch {
	case len(args) > 1 && args[0] == "backend":
		err = runBackend(args[1])
	case len(args) > 1 && args[0] == "keep":
		err = keep(args[1])
	default:
		err = demo()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// errInterrupted is why an interrupted demo fails.
var errInterrupted = errors.New("interrupted; what it had started is ended")

func demo() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the demo at once, and the keeper the rest
	limited, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	err := run(limited)
	if err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// run plays in a directory of its own that is gone afterwards.
func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "proxyd-demo-")
	if err != nil {
		return err
	}
	s, err := prepareService(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	say("building proxyd and proxyctl")
	if err := build(ctx, dir); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
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
