package process

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStartRunsTheProgram(t *testing.T) {
	w := newWorld(t)
	s := w.spec(7, "sh", "-c", `pwd; cat; echo "$1 $GIVEN $PROXYD_GENERATION $PROXYD_CONTROL $PROXYD_PID $$"; echo err >&2; exit 7`, "sh", "an arg\xff")
	s.Env = append(s.Env, "GIVEN=v", "PROXYD_PID=1", "PROXYD_GENERATION=1")
	s.Dir = w.dir
	p := w.start(s)
	if e := w.done(p); e != (Exit{Known: true, Code: 7}) {
		t.Errorf("exit is %+v", e)
	}
	pid := strconv.Itoa(p.Identity().PID)
	rest := " v 7 " + w.path("control.sock") + " " + pid + " " + pid
	if got, want := w.output.String(), w.dir+"\nan arg\xff"+rest+"\nerr\n"; got != want {
		t.Errorf("output is %q, want %q", got, want)
	}
	if got, want := p.LastLines(), []string{w.dir, "an arg\ufffd" + rest, "err"}; !slices.Equal(got, want) {
		t.Errorf("last lines are %q, want %q", got, want)
	}
	noFile(t, w.fifo(7))
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal gives %v", err)
	}
	if err := p.Clear(); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

func TestStartTellsWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	write := func(name, text string, mode os.FileMode) string {
		if err := os.WriteFile(w.path(name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return w.path(name)
	}
	missing := w.path("missing")
	for _, c := range []struct {
		name   string
		change func(*Spec)
		is     error
		want   string
	}{
		{"missing command", func(s *Spec) { s.Argv = []string{missing} }, fs.ErrNotExist, "start " + missing + ": no such file or directory"},
		{"missing in PATH", func(s *Spec) { s.Argv = []string{"no-such-command"} }, fs.ErrNotExist, "start no-such-command: no such file or directory"},
		{"not executable", func(s *Spec) { s.Argv = []string{write("plain", "x", 0o644)} }, fs.ErrPermission, "(it may not be executed: mode -rw-r--r--)"},
		{"not executable in PATH", func(s *Spec) {
			write("plain2", "x", 0o644)
			s.Argv = []string{"plain2"}
			s.Env = []string{"PATH=/nowhere:" + w.dir}
		}, fs.ErrPermission, "permission denied"},
		{"a directory", func(s *Spec) { s.Argv = []string{w.dir} }, fs.ErrPermission, "(it is a directory)"},
		{"no program", func(s *Spec) { s.Argv = []string{write("text", "echo hi\n", 0o755)} }, syscall.ENOEXEC, "begins with #!"},
		{"no interpreter", func(s *Spec) { s.Argv = []string{write("script", "#!/nowhere/sh\n", 0o755)} }, fs.ErrNotExist, "its interpreter is not"},
		{"missing directory", func(s *Spec) { s.Dir = missing }, fs.ErrNotExist, "start sh: change to directory " + missing + ": no such file or directory"},
		{"no command", func(s *Spec) { s.Argv = nil }, nil, "no command"},
		{"zero byte", func(s *Spec) { s.Argv = []string{"sh", "a\x00b"} }, nil, "zero byte"},
		{"bad descriptor name", func(s *Spec) { s.Files = []File{{Name: "a:b", FD: 0}} }, nil, `"a:b"`},
		{"bad descriptor", func(s *Spec) { s.Files = []File{{Name: "a", FD: 9999}} }, syscall.EBADF, "bad file descriptor"},
		{"no output path", func(s *Spec) { s.OutputPath = "" }, nil, "no output path"},
		{"output in no directory", func(s *Spec) { s.OutputPath = missing + "/out" }, fs.ErrNotExist, missing + "/out"},
		{"output is a file", func(s *Spec) { s.OutputPath = write("file", "", 0o644) }, nil, "exists and is none"},
		{"too long arguments", func(s *Spec) { s.Argv = append(s.Argv, strings.Repeat("x", 1<<20)) }, syscall.E2BIG, "argument list too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := w.spec(1, "sh", "-c", "touch ran")
			s.Dir = w.dir
			c.change(&s)
			p, err := w.Start(context.Background(), s, recorded)
			if p != nil || err == nil {
				t.Fatalf("it started: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is %q, want %q", err, c.want)
			}
			noFile(t, w.path("ran"))
			noFile(t, w.fifo(1))
			noChildren(t)
		})
	}
}

func TestCommandIsFoundAsByExecvp(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(w.path("sub/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"one/prog": 0o644, "two/prog": 0o755, "sub/bin/prog": 0o755} {
		_ = os.MkdirAll(filepath.Dir(w.path(name)), 0o755)
		if err := os.WriteFile(w.path(name), []byte("#!/bin/sh\necho "+name+"\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ command, want string }{
		{"prog", "two/prog\n"}, // one/prog may not be executed, the search goes on
		{"bin/prog", "sub/bin/prog\n"},
	} {
		before := w.output.String()
		s := w.spec(1, c.command)
		s.Dir = w.path("sub")
		s.Env = []string{"PATH=" + w.path("one") + ":" + w.path("two") + ":/bin"}
		p := w.start(s)
		w.done(p)
		p.Clear()
		if got := strings.TrimPrefix(w.output.String(), before); got != c.want {
			t.Errorf("%s ran %q, want %q", c.command, got, c.want)
		}
	}
}

func TestNothingRunsBeforeItIsRecorded(t *testing.T) {
	w := newWorld(t)
	s := w.spec(1, "sh", "-c", "touch ran")
	s.Dir = w.dir
	wrong := errors.New("disk is full")
	var id Identity
	_, err := w.Start(context.Background(), s, func(i Identity) error {
		id = i
		noFile(t, w.path("ran"))
		// ForkExec returns in the middle of the exec, before the new name shows.
		eventually(t, "the stub is what was recorded", func() bool { return isStub(i.PID) })
		return wrong
	})
	if !errors.Is(err, wrong) {
		t.Errorf("error is %v", err)
	}
	if err := id.Lives(); !errors.Is(err, ErrGone) {
		t.Errorf("lives: %v", err)
	}
	if _, err := w.Adopt(id, 1, w.fifo(1)); !errors.Is(err, ErrGone) {
		t.Errorf("the stub is left: %v", err)
	}
	noFile(t, w.path("ran"))
	noFile(t, w.fifo(1))
	noChildren(t)
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	w := newWorld(t)
	s := w.spec(1, "sh", "-c", "touch ran")
	s.Dir = w.dir
	ctx, cancel := context.WithCancel(context.Background())
	_, err := w.Start(ctx, s, func(Identity) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if _, err := w.Start(ctx, s, recorded); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	noFile(t, w.path("ran"))
	noFile(t, w.fifo(1))
	noChildren(t)
}

// When the start is cancelled, the program may already have run and forked.
func TestStartCancelledAfterTheExecLeavesNothing(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `echo $$ >&3; (setsid sh -c 'echo $$ >&3; exec sleep 1000' &); exec sleep 1000`)
	s.Files = []File{r.file()}
	ctx, cancel := context.WithCancel(context.Background())
	var both []*watched
	w.executed = func() {
		both = append(both, watch(t, r.number()), watch(t, r.number()))
		cancel()
	}
	if p, err := w.Start(ctx, s, recorded); p != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("it started: %v", err)
	}
	for _, one := range both {
		one.mustEnd()
	}
	noFile(t, w.fifo(1))
	noChildren(t)
}

func TestKilledStubIsAFailedStart(t *testing.T) {
	w := newWorld(t)
	_, err := w.Start(context.Background(), w.spec(1, "true"), func(id Identity) error {
		stub := watch(t, id.PID)
		defer stub.mustEnd()
		return unix.Kill(id.PID, unix.SIGKILL)
	})
	if err == nil {
		t.Fatal("it started")
	}
	noChildren(t)
}

func TestSocketsAreHandedOverAsBySystemd(t *testing.T) {
	w := newWorld(t)
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	flags := func(fd int) [2]int {
		fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		fdfl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return [2]int{fl, fdfl}
	}
	before := [][2]int{flags(fds[0]), flags(fds[1])}
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	if leak <= 6 {
		t.Fatal("the descriptor that is not to leak has a number that is expected")
	}

	// The shell's own pid; the numbers that are open; what the sockets are; the environment.
	s := w.spec(3, "sh", "-c", `echo $$; echo /proc/$$/fd/*; readlink /proc/$$/fd/3 /proc/$$/fd/4 /proc/$$/fd/5; exec env`)
	s.Env = []string{"PATH=" + os.Getenv("PATH"), "LISTEN_FDS=9", "LISTEN_PID=1", "LISTEN_ADDR=kept"}
	s.Files = []File{{Name: "http", FD: fds[1]}, {Name: "http.alt-2", FD: fds[0]}}
	s.Kept = []int{fds[1]} // behind them, and not spoken of
	p := w.start(s)
	w.done(p)
	got := strings.Split(strings.TrimSpace(w.output.String()), "\n")
	pid := strconv.Itoa(p.Identity().PID)
	want := []string{pid, "/proc/" + pid + "/fd/0"}
	for i := 1; i <= 6; i++ { // 6 is the directory that the shell reads
		want[1] += " /proc/" + pid + "/fd/" + strconv.Itoa(i)
	}
	for _, fd := range []int{fds[1], fds[0], fds[1]} {
		link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		want = append(want, link)
	}
	if len(got) < 5 || !slices.Equal(got[:5], want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	env := slices.DeleteFunc(got[5:], func(v string) bool {
		return strings.HasPrefix(v, "PWD=") || strings.HasPrefix(v, "_=") || strings.HasPrefix(v, "OLDPWD=") || strings.HasPrefix(v, "SHLVL=")
	})
	slices.Sort(env)
	wantEnv := []string{"LISTEN_ADDR=kept", "LISTEN_FDNAMES=http:http.alt-2", "LISTEN_FDS=2", "LISTEN_PID=" + pid,
		"PATH=" + os.Getenv("PATH"), "PROXYD_CONTROL=" + w.path("control.sock"), "PROXYD_GENERATION=3", "PROXYD_PID=" + pid}
	if !slices.Equal(env, wantEnv) { // and so no NOTIFY_SOCKET and no WATCHDOG_USEC
		t.Errorf("environment\n     %q\nwant %q", env, wantEnv)
	}
	if after := [][2]int{flags(fds[0]), flags(fds[1])}; !slices.Equal(before, after) {
		t.Errorf("flags were changed: %v, now %v", before, after)
	}
}

func TestNoSocketsNoListenVariables(t *testing.T) {
	w := newWorld(t)
	s := w.spec(3, "env")
	s.Env = []string{"PATH=" + os.Getenv("PATH"), "LISTEN_FDS=9", "LISTEN_PID=1", "LISTEN_FDNAMES=x"}
	w.done(w.start(s))
	if got := w.output.String(); strings.Contains(got, "LISTEN_") || !strings.Contains(got, "PROXYD_PID=") {
		t.Errorf("environment is %q", got)
	}
}

func TestSignalsAreAtTheirDefaults(t *testing.T) {
	w := newWorld(t)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1)
	defer signal.Reset(unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1)
	w.done(w.start(w.spec(1, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")))
	const zero = "\t0000000000000000\n"
	if got := w.output.String(); got != "SigBlk:"+zero+"SigIgn:"+zero {
		t.Errorf("signals are\n%s", got)
	}
}

// printChildLimit runs in a process whose limit was lowered before it started.
func printChildLimit() error {
	d, err := New(Config{Marker: "nofile"})
	if err != nil {
		return err
	}
	defer d.Close()
	b, err := d.Run(context.Background(), []string{"sh", "-c", "ulimit -Sn"}, os.Environ())
	os.Stdout.Write(b)
	return err
}

// Go raises its own soft limit of descriptors at start; select(2) in a program
// breaks above 1024, so programs must get the original back.
func TestLimitOfDescriptorsIsTheOriginal(t *testing.T) {
	argv, env := self(t, "nofile")
	cmd := exec.Command("sh", "-c", `ulimit -Sn 777; exec "$0"`, argv[0])
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "777\n" {
		t.Errorf("limit is %q (%v)", out, err)
	}
}

func TestExitBySignal(t *testing.T) {
	w := newWorld(t)
	p := w.start(w.spec(1, "sh", "-c", "kill -USR1 $$"))
	if e := w.done(p); e != (Exit{Known: true, Signal: unix.SIGUSR1}) {
		t.Errorf("exit is %+v", e)
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `sleep 1000 & echo $! >&3; trap 'echo term >&3; exit 5' TERM; echo ready >&3; wait; wait`)
	s.Files = []File{r.file()}
	p := w.start(s)
	worker := watch(t, r.number())
	r.line()
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.line(); got != "term" {
		t.Errorf("reported %q", got)
	}
	worker.mustEnd()
	if e := w.done(p); e.Code != 5 {
		t.Errorf("exit is %+v", e)
	}
}

func TestIgnoredTermThenKill(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `trap 'echo no >&3' TERM; echo ready >&3; while :; do sleep 1000 & wait; done`)
	s.Files = []File{r.file()}
	p := w.start(s)
	r.line()
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.line(); got != "no" {
		t.Errorf("reported %q", got)
	}
	select {
	case <-p.Done():
		t.Fatal("it has ended")
	default:
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := w.done(p); e.Signal != unix.SIGKILL {
		t.Errorf("exit is %+v", e)
	}
	p.Clear()
	noChildren(t)
}

// Other code of the program may use os/exec: its children are not reaped here.
func TestChildrenOfOthersAreLeftToThem(t *testing.T) {
	w := newWorld(t)
	for range 20 {
		p := w.start(w.spec(1, "true"))
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
		w.done(p)
		p.Clear()
	}
}

func TestClosedDriverStartsNothing(t *testing.T) {
	d, err := New(Config{Marker: "x"})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	d.Close()
	if _, err := d.Start(context.Background(), Spec{}, recorded); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := d.Run(context.Background(), []string{"true"}, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a driver without a marker was made")
	}
}
