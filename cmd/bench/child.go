package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a process that the bench started: in a group of its own, so that
// Ctrl-C reaches only the bench, which then ends it in order; and told to end
// should the bench be killed.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	wrote bytes.Buffer // the first maxWrote bytes
}

const maxWrote = 16 << 10

// starter is the goroutine on whose thread all children are started: the kernel
// sends Pdeathsig when that thread ends (prctl(2)), so it stays until the end.
var starter = sync.OnceValue(func() chan<- func() {
	todo := make(chan func())
	go runStarter(todo)
	return todo
})

// runStarter never ends, and nobody waits for it.
func runStarter(todo <-chan func()) {
	runtime.LockOSThread()
	for f := range todo {
		f()
	}
}

// startChild starts a program; end ends it.
func startChild(argv ...string) (*child, error) {
	c := &child{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c, c
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.cmd.WaitDelay = time.Second // descendants may hold the output open
	started := make(chan error)
	starter() <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	go c.wait()
	return c, nil
}

// wait ends with the process.
func (c *child) wait() {
	_ = c.cmd.Wait()
	close(c.ended)
}

// Write keeps what the process says, for the case that it fails.
func (c *child) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote.Write(b[:min(len(b), maxWrote-c.wrote.Len())])
	return len(b), nil
}

func (c *child) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimSpace(c.wrote.String())
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// end asks with SIGTERM, waits, and in the end kills the whole group.
func (c *child) end() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	select {
	case <-c.ended:
	case <-limit.C:
	}
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
	<-c.ended
}

// startSelf starts this program again in one of its other roles.
func startSelf(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startChild(append([]string{self}, args...)...)
}

// awaitAnswer waits until a request to address is answered, as long as c lives.
func awaitAnswer(ctx context.Context, address string, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		err := tryOnce(ctx, address)
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("%s ended early; it wrote:\n%s", c.cmd.Path, c.said())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve (%w); it wrote:\n%s", c.cmd.Path, errors.Join(ctx.Err(), err), c.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tryOnce(ctx context.Context, address string) error {
	ld, err := newLoad(address)
	if err != nil {
		return err
	}
	defer ld.close()
	return ld.open(ctx, 1)
}
