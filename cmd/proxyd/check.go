package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/backend"
)

// check tests everything short of serving and says what is wrong, all of it.
func (o *options) check(w io.Writer) error {
	d, err := o.daemon(io.Discard, io.Discard)
	if err != nil {
		return err
	}
	err = errors.Join(
		d.checkDirs(),
		d.checkSockets(),
		d.checkState(),
		d.checkCommand(),
	)
	if err != nil {
		return err
	}
	where := o.config
	if where == "" {
		where = "the command line"
	}
	fmt.Fprintf(w, "service %s: %s is fine\n", d.name, where)
	return nil
}

// checkDirs looks whether the directories are there, or could be made.
func (d *daemon) checkDirs() error {
	var errs []error
	for _, dir := range []string{d.runtimeDir, d.stateDir} {
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
func (d *daemon) checkSockets() error {
	if os.Getenv("LISTEN_FDS") == "" && len(d.config.Listeners) == 0 {
		return errors.New("check listeners: there is none; start proxyd from a .socket unit, or give --listen ADDRESS or a [[listener]]")
	}
	return socketPathsFit(d.runtimeDir, d.config.listenerNames())
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

// checkState reads the durable state, without changing it.
func (d *daemon) checkState() error {
	_, _, _, _, err := backend.OpenStore(d.stateDir, d.runtimeDir)
	return err
}

// checkCommand looks whether the first generation's program is there.
func (d *daemon) checkCommand() error {
	if d.config.Backend.Driver != "exec" {
		return nil
	}
	values := map[string]string{"release": d.config.Backend.Release, "generation": "1"}
	program, err := Expand(d.config.Backend.Command[:1], values)
	if err != nil {
		return nil // it names an address, so it cannot be known yet
	}
	path := program[0]
	if strings.Contains(path, "/") && !filepath.IsAbs(path) {
		dir, err := Expand([]string{d.config.Backend.Dir}, values)
		if err != nil {
			return nil
		}
		path = filepath.Join(dir[0], path)
	}
	if _, err := exec.LookPath(path); err != nil && !errors.Is(err, exec.ErrDot) {
		return fmt.Errorf("check command: %w", err)
	}
	return nil
}
