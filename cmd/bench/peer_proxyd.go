package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// findProxyd builds proxyd from this tree, as a newcomer would.
func findProxyd(ctx context.Context, b *bench) (string, error) {
	b.proxyd = filepath.Join(b.dir, "proxyd")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", b.proxyd, "github.com/seed8fae2174/proxyd/cmd/proxyd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build proxyd: %w\n%s", err, out)
	}
	return "this tree", nil
}

// The generations that promotes leave behind end soon, so that a long run does
// not gather processes.
const proxydConfig = `[[listener]]
name    = "bench"
address = %q

[backend]
command = [%s]
path    = %q
release = "first"

[ready]
check = "connect"

[drain]
keep_previous = "2s"
`

func startProxyd(ctx context.Context, b *bench, p place) (*running, error) {
	flag, value := "--tcp", "127.0.0.1:{port}"
	if p.kind == "unix" {
		flag, value = "--unix", "{socket}"
	}
	return startOurs(ctx, b, p, "relay", flag, value)
}

func startDirect(ctx context.Context, b *bench, p place) (*running, error) {
	return startOurs(ctx, b, p, "direct", "--handed")
}

// startOurs starts proxyd with a path and with what tells the backend where to
// listen.
func startOurs(ctx context.Context, b *bench, p place, path string, listen ...string) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var command []string
	for _, word := range append(append([]string{self, "backend"}, listen...), "--while", strconv.Itoa(os.Getpid())) {
		command = append(command, strconv.Quote(word))
	}
	config := filepath.Join(p.dir, "proxyd.toml")
	text := fmt.Appendf(nil, proxydConfig, p.front, strings.Join(command, ", "), path)
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return nil, err
	}
	run := filepath.Join(p.dir, "run")
	c, err := startChild(b.proxyd, "--config", config, "--runtime-dir", run, "--state-dir", filepath.Join(p.dir, "state"), "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	r := &running{children: []*child{c}, pids: []int{c.pid()}, control: control.NewClient(filepath.Join(run, "control.sock"))}
	if err := awaitAnswer(ctx, p.front, c); err != nil {
		r.end()
		return nil, err
	}
	r.backends, err = currentPID(ctx, r.control)
	if err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// currentPID is the process of the current generation.
func currentPID(ctx context.Context, c *control.Client) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask proxyd for its status: %w", err)
	}
	g := st.Generation(st.Current)
	if g == nil || g.PID == 0 {
		return nil, fmt.Errorf("ask proxyd for its status: no process is current (state %s)", st.State)
	}
	return []int{g.PID}, nil
}
