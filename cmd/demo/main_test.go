package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// partVar makes the test binary the demo, and what the demo makes of itself. Its
// value is the release that answers with errors, or "none".
const partVar = "DEMO_TEST_FAULT"

// patience bounds every wait for something that must come; nothing is measured
// by it.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if fault := os.Getenv(partVar); fault != "" {
		fails = func(release string) bool { return release == fault }
		show, downloadPieces = 50*time.Millisecond, 60
		os.Exit(dispatch(os.Args[1:]))
	}
	before := openFiles()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if after := openFiles(); after > before && code == 0 {
		fmt.Fprintf(os.Stderr, "%d descriptors leaked\n", after-before)
		code = 1
	}
	os.Exit(code)
}

func openFiles() (n int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The runtime's poller stays once it is there, and so does os/exec's pidfd.
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(what, "anon_inode:") {
			n++
		}
	}
	return n
}

// played is a demo that runs in a temporary directory of its own.
type played struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	out   text
	ended chan struct{}
}

func startDemo(t *testing.T, fault string) *played {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm-") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &played{t: t, dir: dir, cmd: exec.Command(exe), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), partVar+"="+fault, "TMPDIR="+dir, "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.wait()
	t.Cleanup(p.end)
	return p
}

// wait ends with the demo.
func (p *played) wait() {
	_ = p.cmd.Wait()
	close(p.ended)
}

// end leaves nothing behind, also where the demo failed to.
func (p *played) end() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	for _, pid := range p.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	os.RemoveAll(p.dir)
	if p.t.Failed() {
		p.t.Logf("the demo wrote:\n%s", p.out.String())
	}
}

func (p *played) await(what string, ok func() bool) {
	p.t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			p.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func (p *played) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("it did not end")
		return 0
	}
}

// processes are all that have the demo's environment.
func (p *played) processes() (pids []int) {
	mark := []byte("\x00TMPDIR=" + p.dir + "\x00")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), mark) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// left is what the demo left behind.
func (p *played) left() string {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err.Error()
	}
	if pids := p.processes(); len(pids) > 0 || len(entries) > 0 {
		return fmt.Sprintf("processes %v, files %v", pids, entries)
	}
	return ""
}

func TestDemoEndsWell(t *testing.T) {
	p := startDemo(t, "none")
	if code := p.exit(); code != 0 || !strings.Contains(p.out.String(), "Nothing failed.") {
		t.Errorf("exit %d", code)
	}
	if left := p.left(); left != "" {
		t.Errorf("it left %s", left)
	}
}

// A release that is ready and answers with errors is what the demo must see.
func TestDemoFailsWhereARequestFails(t *testing.T) {
	p := startDemo(t, "v2")
	if code := p.exit(); code != 1 || !strings.Contains(p.out.String(), "500") || strings.Contains(p.out.String(), "Nothing failed.") {
		t.Errorf("exit %d", code)
	}
	if left := p.left(); left != "" {
		t.Errorf("it left %s", left)
	}
}

// However the demo ends, what it started ends too, and its directory goes.
func TestDemoLeavesNothing(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(s.String(), func(t *testing.T) {
			p := startDemo(t, "none")
			p.await("load on it", func() bool { return strings.Contains(p.out.String(), "live load") })
			if n := len(p.processes()); n < 4 { // itself, its keeper, proxyd, a generation
				t.Fatalf("%d processes run", n)
			}
			_ = p.cmd.Process.Signal(s)
			code := p.exit()
			if s == syscall.SIGKILL {
				p.await("the end of all", func() bool { return p.left() == "" })
				return
			}
			if code != 1 || !strings.Contains(p.out.String(), "error: interrupted") {
				t.Errorf("exit %d", code)
			}
			if left := p.left(); left != "" {
				t.Errorf("it left %s", left)
			}
		})
	}
}

// A proxyd that is killed takes its generations with it here, which it would not
// do elsewhere.
func TestDemoWhoseProxydIsKilled(t *testing.T) {
	p := startDemo(t, "none")
	p.await("load on it", func() bool { return strings.Contains(p.out.String(), "live load") })
	killed := false
	for _, pid := range p.processes() {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == "proxyd" {
			killed = syscall.Kill(pid, syscall.SIGKILL) == nil
		}
	}
	if !killed {
		t.Fatal("there is no proxyd")
	}
	if code := p.exit(); code != 1 {
		t.Errorf("exit %d", code)
	}
	if left := p.left(); left != "" {
		t.Errorf("it left %s", left)
	}
}

// Cancelled, a download ends at once.
func TestDownloadIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := startDownload(ctx, "http://127.0.0.1:1")
	d.stop()
	if !errors.Is(d.err, context.Canceled) {
		t.Error(d.err)
	}
}

// text may be written and read at once.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}
