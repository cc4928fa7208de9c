package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/control"
)

// checking is one run of `proxyd check`: what is not wrong and still worth
// knowing is said on w.
type checking struct {
	*daemon
	w io.Writer
}

func (c *checking) say(kind, format string, a ...any) {
	fmt.Fprintf(c.w, "%s: %s\n", kind, fmt.Sprintf(format, a...))
}

// check tests everything short of serving and says what is wrong, all of it.
// Notes and warnings, which are no reason to fail, go to notes.
func (o *options) check(ctx context.Context, w, notes io.Writer) error {
	d, err := o.daemon()
	if err != nil {
		return err
	}
	c := &checking{d, notes}
	release, stateErr := c.checkState(ctx)
	err = errors.Join(
		c.checkDirs(),
		c.checkSockets(),
		c.checkAddresses(ctx),
		stateErr,
		c.checkPrograms(release),
		c.checkTemplate(ctx, release),
	)
	if err != nil {
		return err
	}
	where := o.config
	if where == "" {
		where = "the command line"
	}
	if _, err := fmt.Fprintf(w, "service %s: %s is fine\n", d.name, where); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// checkDirs looks whether the directories are there, or could be made.
func (c *checking) checkDirs() error {
	var errs []error
	for _, dir := range []string{c.runtimeDir, c.stateDir} {
		for {
			info, err := os.Stat(dir)
			if errors.Is(err, fs.ErrNotExist) && dir != "/" {
				dir = filepath.Dir(dir) // it would be made here
				continue
			}
			if err == nil && !info.IsDir() {
				err = fmt.Errorf("%s: not a directory", dir)
			}
			if err == nil {
				if err = unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
					err = fmt.Errorf("%s: %w", dir, err)
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("check directory: %w", err))
			}
			break
		}
	}
	return errors.Join(errs...)
}

// checkSockets checks that the paths of the sockets fit in a unix address, also
// those of a generation with a high number.
func (c *checking) checkSockets() error {
	return socketPathsFit(c.runtimeDir, c.config.listenerNames())
}

// highGeneration stands for any that a service will reach.
const highGeneration = 9_999_999

// socketPathsFit checks the longest paths that will be bound in dir.
func socketPathsFit(dir string, listeners []string) error {
	const most = len(unix.RawSockaddrUnix{}.Path) - 1
	longest := filepath.Join(dir, "control.sock")
	gen := filepath.Join(dir, "gen-"+strconv.Itoa(highGeneration))
	for _, name := range append(listeners, "notify") {
		if path := filepath.Join(gen, name+".sock"); len(path) > len(longest) {
			longest = path
		}
	}
	if len(longest) > most {
		return fmt.Errorf("check runtime directory %s: its sockets would have paths of up to %d bytes, a unix address takes %d; choose a shorter --runtime-dir",
			dir, len(longest), most)
	}
	return nil
}

// checkState reads the durable state, without changing it. It gives the release
// that is started next where nothing else is said: the current one, else the
// config's. What runs must be what the config's driver can take over.
func (c *checking) checkState(ctx context.Context) (release string, err error) {
	release = c.config.Backend.Release
	_, d, _, notes, err := backend.OpenStore(c.stateDir, c.runtimeDir)
	for _, n := range notes {
		c.say("warning", "a copy of the state is passed over: %s", n)
	}
	for _, g := range d.Generations {
		if g.ID == d.Current {
			release = g.Release
		}
	}
	if err == nil {
		err = checkTakeOver(ctx, c.config, d, askForListeners(ctx, control.SocketIn(c.runtimeDir)).there)
	}
	return release, err
}
