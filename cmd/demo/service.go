package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// service is a running proxyd with the demo's backend behind it.
type service struct {
	dir    string
	url    string
	proxyd *exec.Cmd
	log    bytes.Buffer // proxyd's own; read only after it has ended
	ended  chan error
}

const configText = `[[listener]]
name    = "http"
address = %q

[backend]
command = [%q, "backend", "{release}"]
release = "v1"

[ready]
check    = "http"
path     = "/healthz"
interval = "100ms"
deadline = "3s"
`

// startService starts proxyd on a free port and waits until it serves.
func startService(ctx context.Context, dir string) (*service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "demo.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configText, address, self), 0o600); err != nil {
		return nil, err
	}
	s := &service{dir: dir, url: "http://" + address, ended: make(chan error, 1)}
	s.proxyd = exec.Command(filepath.Join(dir, "proxyd"), "--config", config,
		"--runtime-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state"))
	s.proxyd.Stdout, s.proxyd.Stderr = &s.log, &s.log
	if err := s.proxyd.Start(); err != nil {
		return nil, fmt.Errorf("start proxyd: %w", err)
	}
	go s.wait()
	if err := s.awaitServing(ctx); err != nil {
		stopErr := s.stop()
		return nil, errors.Join(err, stopErr, fmt.Errorf("proxyd wrote:\n%s", s.log.String()))
	}
	return s, nil
}

// wait ends with proxyd.
func (s *service) wait() { s.ended <- s.proxyd.Wait() }

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *service) awaitServing(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for {
		if st, err := s.status(ctx); err == nil && st.State == "serving" {
			return nil
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("proxyd ended early: %w", err)
		case <-limit:
			return errors.New("proxyd did not serve within 15s")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// status is what the demo reads of `proxyctl status -o json`.
type status struct {
	State       string `json:"state"`
	Current     uint64 `json:"current"`
	Generations []struct {
		ID       uint64 `json:"id"`
		Release  string `json:"release"`
		State    string `json:"state"`
		InFlight uint64 `json:"in_flight"`
	} `json:"generations"`
}

func (s *service) status(ctx context.Context) (status, error) {
	var st status
	out, err := s.command(ctx, "status", "-o", "json").Output()
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}

func (s *service) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--socket", filepath.Join(s.dir, "run", "control.sock")}, args...)
	return exec.CommandContext(ctx, filepath.Join(s.dir, "proxyctl"), args...)
}

// proxyctl runs one verb as a person would, shows what it prints, and gives its
// exit code.
func (s *service) proxyctl(ctx context.Context, args ...string) (int, error) {
	fmt.Printf("\n$ proxyctl %s\n", strings.Join(args, " "))
	out, err := s.command(ctx, args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		fmt.Print("  ", line)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// stop ends proxyd as systemd would, and waits for it.
func (s *service) stop() error {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := s.proxyd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("proxyd: %w; it wrote:\n%s", err, s.log.String())
		}
		return nil
	case <-time.After(40 * time.Second):
		_ = s.proxyd.Process.Kill()
		return errors.New("proxyd did not end within 40s of SIGTERM")
	}
}
