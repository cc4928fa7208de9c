package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	keeper *exec.Cmd      // its child is proxyd
	hold   io.WriteCloser // the keeper's input: see keep
	log    *os.File       // what proxyd wrote; open, as the keeper removes the file
	told   bool           // what it wrote was shown
	ended  chan error     // of the keeper, and so of proxyd
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

[stop]
timeout = "5s"
`

const configName = "demo.toml"

// prepareService makes dir and starts the keeper, which removes it. From then on
// nothing is left behind, whatever becomes of the demo.
func prepareService(dir string) (*service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &service{dir: dir, ended: make(chan error, 1)}
	if s.log, err = os.OpenFile(filepath.Join(dir, "proxyd.log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	s.keeper = exec.Command(self, "keep", dir)
	s.keeper.Stdout, s.keeper.Stderr = s.log, s.log
	s.keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for the demo
	if s.hold, err = s.keeper.StdinPipe(); err == nil {
		err = s.keeper.Start()
	}
	if err != nil {
		s.log.Close()
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	go s.wait()
	return s, nil
}

// start has the keeper start proxyd on a free port, and waits until it serves.
func (s *service) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s.url = "http://" + address
	if err := os.WriteFile(filepath.Join(s.dir, configName), fmt.Appendf(nil, configText, address, self), 0o600); err != nil {
		return err
	}
	if _, err := s.hold.Write([]byte{'.'}); err != nil {
		return fmt.Errorf("start proxyd: %w", err)
	}
	if err := s.awaitServing(ctx); err != nil {
		s.told = true
		return fmt.Errorf("%w; proxyd wrote:\n%s", err, s.wrote())
	}
	return nil
}

// wait ends with the keeper.
func (s *service) wait() { s.ended <- s.keeper.Wait() }

// wrote gives proxyd's log.
func (s *service) wrote() string {
	info, err := s.log.Stat()
	if err != nil {
		return err.Error()
	}
	text := make([]byte, info.Size())
	n, _ := s.log.ReadAt(text, 0)
	return string(text[:n])
}

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
			return fmt.Errorf("proxyd ended early: %v", err)
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

// stop lets the keeper end proxyd, as systemd would, and remove everything.
func (s *service) stop() error {
	defer s.log.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	_ = s.hold.Close()
	if err := <-s.ended; err != nil && !s.told {
		return fmt.Errorf("proxyd: %w; it wrote:\n%s", err, s.wrote())
	}
	return nil
}
