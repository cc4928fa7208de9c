package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	LaunchIfAsked()
	if mode := os.Getenv("PROCESS_TEST_MODE"); mode != "" {
		os.Exit(testMode(mode))
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR2) // starts os/signal's goroutine before the count
	_, _ = bootID()
	before := descriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Println("goroutines leak:", err)
		code = 1
	}
	if after := descriptors(); !slices.Equal(before, after) {
		fmt.Println("descriptors leak:", before, after)
		code = 1
	}
	all, err := processes()
	for _, s := range all {
		if s.ppid == os.Getpid() {
			fmt.Printf("child process leaks: %+v %s\n", s, command(s.pid))
			code = 1
		}
	}
	if err != nil || len(children.pids)+len(children.tracked)+children.drivers != 0 {
		fmt.Println("registry is not empty:", err, children)
		code = 1
	}
	os.Exit(code)
}

// descriptors lists the open ones, without those of the runtime's poller, which
// come with the first use.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			list = append(list, e.Name()+" "+to)
		}
	}
	return slices.DeleteFunc(list, func(s string) bool { return strings.Contains(s, "/proc/") })
}

// lines collects what a Driver writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// world is a Driver and a place for its files.
type world struct {
	t *testing.T
	*Driver
	dir    string
	output *lines
}

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), output: &lines{}}
	c := Config{Service: "web", Marker: filepath.Join(w.dir, "control.sock"), Output: w.output, Log: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}})}
	for _, f := range change {
		f(&c)
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.Driver = d
	t.Cleanup(func() {
		if strays, err := d.Sweep(nil); err != nil || len(strays) > 0 {
			t.Errorf("left over at the end of the test: %+v %v", strays, err)
		}
		d.Close()
	})
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) fifo(generation uint64) string {
	return w.path(fmt.Sprintf("gen-%d.output", generation))
}

func (w *world) spec(generation uint64, argv ...string) Spec {
	return Spec{Generation: generation, Argv: argv, Env: os.Environ(), OutputPath: w.fifo(generation)}
}

func recorded(Identity) error { return nil }

// start starts a program that the test ends itself, or that is ended with it.
func (w *world) start(s Spec) *Process {
	w.t.Helper()
	p, err := w.Start(context.Background(), s, recorded)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := errors.Join(p.Kill(), p.Clear()); err != nil {
			w.t.Error(err)
		}
	})
	return p
}

func (w *world) done(p *Process) Exit {
	w.t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(patience):
		w.t.Fatalf("process %d has not ended", p.Identity().PID)
		return Exit{}
	}
}

// report is a pipe on which programs tell the test something, by descriptor 3.
type report struct {
	t     *testing.T
	write *os.File
	read  *bufio.Reader
}

func newReport(t *testing.T) *report {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// What is handed over is blocking, as programs expect of their pipes.
	if err := unix.SetNonblock(int(w.Fd()), false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &report{t: t, write: w, read: bufio.NewReader(r)}
}

func (r *report) file() File { return File{Name: "report", FD: int(r.write.Fd())} }

func (r *report) line() string {
	r.t.Helper()
	s, err := r.read.ReadString('\n')
	if err != nil {
		r.t.Fatalf("read report: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

func (r *report) number() int {
	r.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(r.line()))
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// watched is a process that the test holds on to.
type watched struct {
	t     *testing.T
	pid   int
	pidfd int
}

func watch(t *testing.T, pid int) *watched {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("open process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &watched{t, pid, fd}
}

func (w *watched) alive() bool { return !ended(w.pidfd) }

func (w *watched) mustEnd() {
	w.t.Helper()
	if !awaitEnd([]int{w.pidfd}, int(patience/time.Millisecond)) {
		w.t.Fatalf("process %d is left over: %s", w.pid, command(w.pid))
	}
}

func (w *watched) mustLive() {
	w.t.Helper()
	if !w.alive() {
		w.t.Fatalf("process %d has ended", w.pid)
	}
}

// eventually waits for what no descriptor tells of.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		runtime.Gosched()
	}
}

func noFile(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s exists (%v)", path, err)
	}
}

func noChildren(t *testing.T) {
	t.Helper()
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.ppid == os.Getpid() {
			t.Fatalf("child is left: %+v %s", s, command(s.pid))
		}
	}
}

// self gives the command and environment of this test binary in a mode.
func self(t *testing.T, mode string, env ...string) (argv, environment []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe}, append(append(os.Environ(), "PROCESS_TEST_MODE="+mode), env...)
}

// testMode is what this binary does as somebody else's program.
func testMode(mode string) int {
	var err error
	switch mode {
	case "clobber": // overwrite the environment, report, wait to be killed
		if err = clobberEnviron(); err == nil {
			fmt.Fprintln(os.NewFile(3, "report"), os.Getpid())
			sleepForEver()
		}
	case "hide": // leave every trace behind, twice forked: see hide
		err = hide()
	case "leaderless": // the first thread ends, the others live on
		err = leaderless()
	case "proxyd":
		err = fakeProxyd()
	case "nofile":
		err = printChildLimit()
	default:
		err = fmt.Errorf("unknown mode %q", mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

// sleepForEver waits to be killed. An empty select would end the program: Go
// takes it for a deadlock, unless cgo is linked in as with the race detector.
func sleepForEver() {
	for {
		_ = unix.Pause()
	}
}

// clobberEnviron does what nginx's setproctitle does to /proc/PID/environ.
func clobberEnviron() error {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	start, err1 := strconv.ParseInt(f[47], 10, 64)
	end, err2 := strconv.ParseInt(f[48], 10, 64)
	mem, err3 := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(make([]byte, end-start), start)
	return err
}

// hide starts a shell in a session of its own, with no environment and no
// output, whose parent then goes away. It reports the pid, or with
// PROCESS_TEST_STAY waits for a byte from descriptor 4 between the forks.
func hide() error {
	report := os.NewFile(3, "report")
	files := []uintptr{0, 0, 0, report.Fd()}
	if os.Getenv("PROCESS_TEST_HIDDEN") == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		// The middle: a session leader that forks the last and exits.
		_, err = syscall.ForkExec(exe, []string{exe}, &syscall.ProcAttr{
			Env:   []string{"PROCESS_TEST_MODE=hide", "PROCESS_TEST_HIDDEN=1", "PATH=" + os.Getenv("PATH")},
			Files: append(files, 4),
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(-1, &status, 0, nil)
		fmt.Fprintln(report, "middle is gone")
		sleepForEver()
	}
	fmt.Fprintln(report, os.Getpid())
	if _, err := os.NewFile(4, "go").Read(make([]byte, 1)); err != nil {
		return err
	}
	_, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "echo $$ >&3; exec 3>&-; exec sleep 1000"}, &syscall.ProcAttr{
		Env: []string{}, Files: files,
	})
	return err
}

func leaderless() error {
	runtime.LockOSThread()
	go func() {
		eventually(new(testing.T), "the leader is a zombie", func() bool {
			s, err := readStat(os.Getpid())
			return err == nil && s.state == 'Z'
		})
		fmt.Fprintln(os.NewFile(3, "report"), os.Getpid())
		sleepForEver()
	}()
	if unix.Gettid() != os.Getpid() {
		return errors.New("not the first thread")
	}
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of this thread only
	return nil
}

// testWriter shows a log with the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}
