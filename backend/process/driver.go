package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that a process is no more.
	ErrGone = errors.New("process is gone")
	// ErrClosed says that the Driver was closed.
	ErrClosed = errors.New("driver is closed")
	// errLeft says that processes could not be ended.
	errLeft = errors.New("processes are left over")
)

// Config of a Driver.
type Config struct {
	// Service names it in the log. Default: none.
	Service string
	// Marker is unique on this host, the path of the control socket. Every
	// process is started with PROXYD_CONTROL=Marker. Required.
	Marker string
	// Log is used as it is given, named by the caller. Default: none.
	Log hclog.Logger
	// Output takes the lines that generations write, whole and as they are,
	// one Write at a time for all of them. While it blocks, a generation that
	// writes much blocks too. Default: they are dropped.
	Output io.Writer
	// OutputOf tells from the path of a FIFO whose output it is. The path is
	// as the kernel names it, without symbolic links. With it, Running and
	// Sweep find programs that have overwritten their environment. Default:
	// they do not.
	OutputOf func(path string) (generation uint64, ok bool)
}

// Driver starts processes and ends them. Its methods may be called from several
// goroutines.
type Driver struct {
	config Config
	log    hclog.Logger

	executed func() // of every Start, for tests

	outputMu sync.Mutex // whole lines, one after the other

	signals chan os.Signal
	closed  chan struct{}
	once    sync.Once
	reaper  sync.WaitGroup
}

// New gives a Driver. It makes this process a child subreaper and takes notice
// of SIGCHLD, until Close.
func New(c Config) (*Driver, error) {
	if c.Marker == "" || strings.ContainsRune(c.Marker, 0) {
		return nil, fmt.Errorf("make driver: marker %q is empty or holds a zero byte", c.Marker)
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if _, err := readStat(os.Getpid()); err != nil {
		return nil, fmt.Errorf("make driver: /proc is needed: %w", err)
	}
	if _, err := bootID(); err != nil {
		return nil, fmt.Errorf("make driver: %w", err)
	}
	if err := children.join(); err != nil {
		return nil, fmt.Errorf("make driver: %w", err)
	}
	log := c.Log
	if c.Service != "" {
		log = log.With("service", c.Service)
	}
	d := &Driver{config: c, log: log, signals: make(chan os.Signal, 1), closed: make(chan struct{})}
	signal.Notify(d.signals, unix.SIGCHLD)
	d.reaper.Add(1)
	go d.reap()
	return d, nil
}

// reap waits for orphans that exit. It ends when the Driver is closed; Close
// waits for it.
func (d *Driver) reap() {
	defer d.reaper.Done()
	for {
		select {
		case <-d.signals:
			children.reapOrphans()
		case <-d.closed:
			return
		}
	}
}

// Close gives up everything that the Driver holds, but ends no process: those
// that run go on without it, and their Done is never closed.
func (d *Driver) Close() error {
	d.once.Do(func() {
		signal.Stop(d.signals)
		close(d.closed)
		d.reaper.Wait()
		for _, p := range children.processes() {
			if p.driver == d {
				p.release()
			}
		}
		children.leave()
	})
	return nil
}

func (d *Driver) isClosed() bool {
	select {
	case <-d.closed:
		return true
	default:
		return false
	}
}

// writeLines hands whole lines on, one process's at a time.
func (d *Driver) writeLines(b []byte) {
	d.outputMu.Lock()
	defer d.outputMu.Unlock()
	_, _ = d.config.Output.Write(b) // there is nobody to tell
}

// outputPath gives a FIFO's path as the kernel will name it.
func outputPath(path string) (string, error) {
	if path == "" {
		return "", errors.New("no output path is given")
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // if there is none, its use will tell
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}
