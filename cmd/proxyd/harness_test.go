package main

import (
	"bytes"
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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// patience bounds every wait for something that must come; nothing is measured
// by it.
const patience = 60 * time.Second

// daemonUnderTest is a real proxyd with real generations, in a directory of its
// own.
type daemonUnderTest struct {
	t       *testing.T
	dir     string
	address string // of its listener
	config  string // path
	program string // which build: proxyd, proxyd-faults
	env     []string
	nofile  int
	passed  []*os.File // sockets named http, passed as systemd does it
	wrap    []string   // a command that becomes proxyd, which is its last arguments

	speaksTo *os.File // its stdout and stderr, instead of log

	cmd   *exec.Cmd
	ended chan struct{}
	log   *safeBuffer
}

// setup is what a test may say about its daemon, beside the [backend] command.
type setup struct {
	command  []string
	backend  string // more of [backend]
	listener string // more of [[listener]]
	toml     string // further sections
	program  string // default "proxyd"
	env      []string
	address  string // default: a free loopback port
	nofile   int    // RLIMIT_NOFILE of proxyd; 0: as the test's
	path     string // backend.path; default: the one of pathVar, or else proxyd's
}

// pathVar names the path of daemons whose test does not say one, see
// TestOverTheRelay.
const pathVar = "PROXYD_TEST_PATH"

// self is the command of the test's own backend in a mode.
func self(t *testing.T, mode string, args ...string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{exe, "backend", mode}, args...)
}

// newDaemon writes the config of a daemon; start starts it.
func newDaemon(t *testing.T, s setup) *daemonUnderTest {
	t.Helper()
	d := &daemonUnderTest{t: t, dir: shortTempDir(t), address: s.address, program: s.program, env: s.env, nofile: s.nofile}
	if d.address == "" {
		d.address = freeAddress(t)
	}
	if d.program == "" {
		d.program = "proxyd"
	}
	d.config = filepath.Join(d.dir, "web.toml")
	d.writeConfig(s)
	t.Cleanup(d.end)
	return d
}

// pass makes proxyd get files as a .socket unit's, rather than open its address.
func (d *daemonUnderTest) pass(files ...*os.File) {
	d.t.Helper()
	d.passed = files
	text, err := os.ReadFile(d.config)
	if err != nil {
		d.t.Fatal(err)
	}
	address := fmt.Sprintf("address = %q\n", d.address)
	without := strings.Replace(string(text), "[[listener]]\nname = \"http\"\n"+address+"\n", "", 1)
	without = strings.Replace(without, address, "", 1) // what else it says of the listener stays
	if err := os.WriteFile(d.config, []byte(without), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemonUnderTest) writeConfig(s setup) {
	d.t.Helper()
	command, err := json.Marshal(s.command) // a TOML array of strings, too
	if err != nil {
		d.t.Fatal(err)
	}
	if s.path == "" {
		s.path = os.Getenv(pathVar)
	}
	if s.path != "" {
		s.backend += fmt.Sprintf("\npath = %q", s.path)
	}
	text := fmt.Sprintf("[[listener]]\nname = \"http\"\naddress = %q\n%s\n\n[backend]\ncommand = %s\nrelease = \"v1\"\n%s\n%s\n",
		d.address, s.listener, command, s.backend, s.toml)
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// shortTempDir is a t.TempDir whose path leaves room for socket names.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts proxyd and waits until it answers on its control socket.
func (d *daemonUnderTest) start() {
	d.t.Helper()
	d.launch()
	d.await("an answer of proxyd", func() bool {
		select {
		case <-d.ended:
			d.t.Fatalf("proxyd ended early:\n%s", d.log)
		default:
		}
		_, err := d.tryStatus()
		return err == nil
	})
}

// startServing also waits until its first generation serves.
func (d *daemonUnderTest) startServing() {
	d.t.Helper()
	d.start()
	d.awaitState("serving")
}

func (d *daemonUnderTest) launch() {
	d.t.Helper()
	d.log = &safeBuffer{}
	args := []string{filepath.Join(bin, d.program), "--config", d.config,
		"--runtime-dir", filepath.Join(d.dir, "run"), "--state-dir", filepath.Join(d.dir, "state"), "--log-level", "debug"}
	args = append(slices.Clone(d.wrap), args...)
	if d.nofile > 0 {
		args = append([]string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, d.nofile), "sh"}, args...)
	}
	if n := len(d.passed); n > 0 {
		names := strings.Repeat(":http", n)[1:]
		args = append([]string{"/bin/sh", "-c", fmt.Sprintf(`export LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s; exec "$@"`, n, names), "sh"}, args...)
	}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.ExtraFiles = d.passed
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if d.speaksTo != nil {
		d.cmd.Stdout, d.cmd.Stderr = d.speaksTo, d.speaksTo
	}
	d.cmd.WaitDelay = time.Second // generations may outlive it with its output open
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go waitFor(d.cmd, d.ended)
}

// waitFor ends with the command.
func waitFor(cmd *exec.Cmd, ended chan struct{}) {
	_ = cmd.Wait()
	close(ended)
}

// awaitEnd waits for a proxyd that ends by itself.
func (d *daemonUnderTest) awaitEnd() {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatalf("proxyd goes on, and wrote:\n%s", d.log)
	}
}

// end ends proxyd as systemd would and looks for what it left behind.
func (d *daemonUnderTest) end() {
	if d.cmd == nil {
		return
	}
	d.stop()
	if left := d.processes(); len(left) > 0 {
		d.t.Errorf("processes are left over: %v", left)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if d.t.Failed() {
		d.t.Logf("proxyd wrote:\n%s", d.log)
	}
}

func (d *daemonUnderTest) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Error("proxyd did not end at SIGTERM")
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
}

// kill9 ends proxyd without a chance to tidy up.
func (d *daemonUnderTest) kill9() {
	_ = d.cmd.Process.Signal(syscall.SIGKILL)
	<-d.ended
}

// processes lists what runs with this daemon's mark in its environment.
func (d *daemonUnderTest) processes() []int {
	mark := "PROXYD_CONTROL=" + d.socket()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"\x00")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (d *daemonUnderTest) socket() string { return filepath.Join(d.dir, "run", "control.sock") }

// ctl runs proxyctl and gives what it printed and its exit code.
func (d *daemonUnderTest) ctl(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "proxyctl"), append([]string{"--socket", d.socket()}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("proxyctl %v: %v", args, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// mustCtl is ctl where anything but exit 0 is a failure.
func (d *daemonUnderTest) mustCtl(args ...string) string {
	d.t.Helper()
	stdout, stderr, code := d.ctl(args...)
	if code != 0 {
		d.t.Fatalf("proxyctl %v exited with %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// result runs a verb with -o json and gives its result.
func (d *daemonUnderTest) result(args ...string) control.Result {
	d.t.Helper()
	var r control.Result
	if err := json.Unmarshal([]byte(d.mustCtl(append(args, "-o", "json")...)), &r); err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *daemonUnderTest) tryStatus() (control.Status, error) {
	var st control.Status
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
		},
	}, Timeout: patience}
	resp, err := client.Get("http://proxyd/v1/status")
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

func (d *daemonUnderTest) status() control.Status {
	d.t.Helper()
	st, err := d.tryStatus()
	if err != nil {
		d.t.Fatalf("status: %v\n%s", err, d.log)
	}
	return st
}

// generation gives one generation of the status.
func (d *daemonUnderTest) generation(id uint64) control.Generation {
	d.t.Helper()
	for _, g := range d.status().Generations {
		if g.ID == id {
			return g
		}
	}
	d.t.Fatalf("no generation %d in status", id)
	return control.Generation{}
}

// await polls until ok, which is how a test waits for another process; a limit
// far off any real time turns a hang into a failure.
func (d *daemonUnderTest) await(what string, ok func() bool) {
	d.t.Helper()
	await(d.t, what, ok)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func (d *daemonUnderTest) awaitState(want string) {
	d.t.Helper()
	d.await("service state "+want, func() bool { return string(d.status().State) == want })
}

func (d *daemonUnderTest) awaitGeneration(id uint64, states ...string) {
	d.t.Helper()
	d.await(fmt.Sprintf("generation %d to be %v", id, states), func() bool {
		for _, s := range states {
			if string(d.generation(id).State) == s {
				return true
			}
		}
		return false
	})
}

// get asks over a new connection and gives the answer.
func (d *daemonUnderTest) get(path string) (string, error) { return get(d.address, path) }

func get(address, path string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
		address = "unix"
	}
	client := http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered with %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// mustAnswer wants new connections answered by release.
func (d *daemonUnderTest) mustAnswer(release string) {
	d.t.Helper()
	for range 10 {
		got, err := d.get("/")
		if err != nil {
			d.t.Fatal(err)
		}
		if first, _, _ := strings.Cut(got, " "); first != release {
			d.t.Fatalf("a new connection was answered by %q, not %s", got, release)
		}
	}
}

// safeBuffer may be written and read at once.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
