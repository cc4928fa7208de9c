package process

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// escapes are ways in which a grandchild leaves its group, each run by a shell
// that goes on. Every one reports its pid.
var escapes = map[string]string{
	"background job":        `sleep 1000 & echo $! >&3`,
	"session":               `{ setsid sh -c 'echo $$ >&3; exec sleep 1000' & }`,
	"double fork":           `(setsid sh -c 'echo $$ >&3; exec sleep 1000' &)`,
	"no environment":        `(setsid env -i sh -c 'echo $$ >&3; exec sleep 1000' &)`,
	"no environment, no io": `(setsid env -i sh -c 'echo $$ >&3; exec sleep 1000' >/dev/null 2>&1 &)`,
	"no io":                 `(setsid sh -c 'echo $$ >&3; exec sleep 1000' >/dev/null 2>&1 &)`,
}

func TestKillEndsWhoEscaped(t *testing.T) {
	for name, escape := range escapes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := newReport(t)
			s := w.spec(1, "sh", "-c", `trap '' TERM; `+escape+`; while :; do sleep 1000; done`)
			s.Files = []File{r.file()}
			p := w.start(s)
			escaped := watch(t, r.number())
			if !p.Owns(escaped.pid) {
				t.Error("it is not owned")
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			escaped.mustEnd()
			w.done(p)
			if err := p.Clear(); err != nil {
				t.Error(err)
			}
			noChildren(t)
		})
	}
}

func TestClearEndsWhatIsLeftBehind(t *testing.T) {
	for name, escape := range escapes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := newReport(t)
			s := w.spec(1, "sh", "-c", escape+`; exit 3`)
			s.Files = []File{r.file()}
			p := w.start(s)
			left := watch(t, r.number())
			if e := w.done(p); e.Code != 3 {
				t.Errorf("exit is %+v", e)
			}
			left.mustLive()
			if err := p.Clear(); err != nil {
				t.Fatal(err)
			}
			left.mustEnd()
			noChildren(t)
		})
	}
}

// hidden starts a program that leaves a process without any mark: see hide.
// seen is called while the tree still tells whose it is.
func hidden(t *testing.T, w *world, generation uint64, seen func(p *Process)) (*Process, *watched) {
	t.Helper()
	r := newReport(t)
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer goRead.Close()
	defer goWrite.Close()
	argv, env := self(t, "hide")
	s := w.spec(generation, argv...)
	s.Env = env
	s.Files = []File{r.file(), {Name: "go", FD: int(goRead.Fd())}}
	p := w.start(s)
	r.line() // the middle tells its pid
	seen(p)
	if _, err := goWrite.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var pid int
	for range 2 { // in either order
		if n, err := strconv.Atoi(r.line()); err == nil {
			pid = n
		}
	}
	return p, watch(t, pid)
}

func TestHiddenOrphanOfTheOnlyGeneration(t *testing.T) {
	w := newWorld(t)
	p, orphan := hidden(t, w, 1, func(*Process) {})
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	orphan.mustEnd()
}

// With two generations it is known whose it is by its session, if the session's
// founder was seen once.
func TestHiddenOrphanIsKnownByWhatWasSeen(t *testing.T) {
	w := newWorld(t)
	other := w.start(w.spec(2, "sleep", "1000"))
	p, orphan := hidden(t, w, 1, func(p *Process) {
		if _, err := p.members(); err != nil {
			t.Fatal(err)
		}
	})
	if other.Owns(orphan.pid) || !p.Owns(orphan.pid) {
		t.Error("it is the other's")
	}
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	orphan.mustLive()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	orphan.mustEnd()
}

// A process that may be another generation's is not killed before that one's
// end is asked for.
func TestHiddenOrphanOfUnknownGenerationIsKilledLast(t *testing.T) {
	w := newWorld(t)
	other := w.start(w.spec(2, "sleep", "1000"))
	p, orphan := hidden(t, w, 1, func(*Process) {})
	for _, one := range []*Process{p, other} {
		if one.Owns(orphan.pid) {
			t.Fatalf("generation %d owns it", one.generation)
		}
		if one == p {
			continue
		}
		orphan.mustLive()
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	w.done(p)
	p.Clear()
	orphan.mustLive()
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	orphan.mustEnd()
}

func TestClobberedEnvironment(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	argv, env := self(t, "clobber")
	// Out of the group and orphaned, and then without its environment.
	s := w.spec(1, "sh", "-c", `(setsid "$0" &); sleep 1000`, argv[0])
	s.Env = env
	s.Files = []File{r.file()}
	p := w.start(s)
	other := w.start(w.spec(2, "sleep", "1000"))
	pid := r.number()
	if env := environ(pid); len(env) != 0 {
		t.Fatalf("it still has %q", env)
	}
	clobbered := watch(t, pid)
	if !p.Owns(pid) || other.Owns(pid) {
		t.Error("it is the other's")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	clobbered.mustEnd()
}

func TestOrphansAreReaped(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `(setsid sh -c 'echo $$ >&3' &); sleep 1000`)
	s.Files = []File{r.file()}
	w.start(s)
	orphan := watch(t, r.number())
	orphan.mustEnd()
	eventually(t, "the orphan is reaped", func() bool {
		_, err := readStat(orphan.pid)
		return err != nil
	})
}

// A second run of a generation has the same marks as what the first left behind.
func TestClearSparesTheNextRun(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.spec(1, "true"))
	w.done(first)
	second := w.start(w.spec(1, "sh", "-c", "sleep 1000; true"))
	if err := first.Clear(); err != nil {
		t.Fatal(err)
	}
	if e := second.Signal(0); e != nil {
		t.Fatal(e)
	}
	if _, err := os.Stat(w.fifo(1)); err != nil {
		t.Error(err)
	}
}

// What was read of the processes before a run began takes nothing from it.
func TestAnOldListForgetsNoMainProcess(t *testing.T) {
	w := newWorld(t)
	old, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	p := w.start(w.spec(1, "sleep", "1000"))
	p.notice(old)
	if !p.Owns(p.Identity().PID) || !p.knows(p.Identity().PID) {
		t.Error("it does not know its main process")
	}
	first := w.start(w.spec(1, "true"))
	w.done(first)
	p.notice(old)
	if err := first.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(0); err != nil {
		t.Error(err)
	}
}

func TestOwns(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `sh -c 'echo $$ >&3; sleep 1000; true' & wait`)
	s.Files = []File{r.file()}
	p := w.start(s)
	other := w.start(w.spec(2, "sleep", "1000"))
	worker := r.number()
	for pid, want := range map[int]bool{
		p.Identity().PID: true, worker: true, other.Identity().PID: false,
		0: false, -1: false, 1: false, os.Getpid(): false, os.Getppid(): false, 1 << 30: false,
	} {
		if got := p.Owns(pid); got != want {
			t.Errorf("Owns(%d) is %v", pid, got)
		}
	}
}

// A process whose first thread has ended is shown as a zombie, but lives.
func TestZombieLeaderIsAlive(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	argv, env := self(t, "leaderless")
	s := w.spec(1, argv...)
	s.Env = env
	s.Files = []File{r.file()}
	p := w.start(s)
	pid := r.number()
	if s, err := readStat(pid); err != nil || s.dead() || s.state != 'Z' {
		t.Errorf("it is %+v (%v)", s, err)
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
}

func TestRunningAndSweep(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	start := func(generation uint64, release, script string) *Process {
		s := w.spec(generation, "sh", "-c", script)
		s.Env = append(s.Env, "PROXYD_RELEASE="+release)
		s.Files = []File{r.file()}
		return w.start(s)
	}
	kept := start(3, "v3", `sleep 1000 & echo $! >&3; wait`)
	keptWorker := watch(t, r.number())
	stray := start(4, "v4", `(setsid sh -c 'echo $$ >&3; exec sleep 1000' &); exec sleep 1000`)
	strayWorker := watch(t, r.number())
	// Others' processes whose environments hold our mark as a part only.
	marker := "PROXYD_CONTROL=" + w.path("control.sock")
	var others []*watched
	for _, env := range [][]string{
		{marker + "x", "PROXYD_GENERATION=4"}, {"X" + marker, "PROXYD_GENERATION=4"}, {"A=" + marker, "PROXYD_GENERATION=4"},
		{marker, "PROXYD_GENERATION=four"}, {marker}, {"PROXYD_CONTROL=" + w.dir, "PROXYD_GENERATION=4"},
	} {
		cmd := sleeper(t, env...)
		others = append(others, watch(t, cmd.Process.Pid))
	}

	running, err := w.Running()
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]Found{
		kept.Identity().PID:  {3, "v3", kept.Identity(), true},
		stray.Identity().PID: {4, "v4", stray.Identity(), true},
	}
	for _, f := range running {
		if m, ok := want[f.Identity.PID]; ok && f != m {
			t.Errorf("found %+v, want %+v", f, m)
		} else if !ok && (f.Main || f.Identity.PID != keptWorker.pid && f.Identity.PID != strayWorker.pid) {
			t.Errorf("found %+v", f)
		}
	}
	if len(running) != 4 {
		t.Errorf("found %+v", running)
	}

	strays, err := w.Sweep(map[uint64]bool{3: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(strays) != 2 {
		t.Errorf("swept %+v", strays)
	}
	for _, s := range strays {
		if s.Generation != 4 || !strings.Contains(s.Command, "sleep 1000") {
			t.Errorf("swept %+v", s)
		}
	}
	strayWorker.mustEnd()
	w.done(stray)
	keptWorker.mustLive()
	for _, o := range others {
		o.mustLive()
	}
	if e := kept.Signal(0); e != nil {
		t.Error(e)
	}
}

// nginx overwrites its environment: its output still tells what it is.
func TestRunningByOutput(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		dir := strings.TrimSuffix(c.Marker, "control.sock")
		c.OutputOf = func(path string) (uint64, bool) {
			rest, ok := strings.CutPrefix(path, dir+"gen-")
			n, err := strconv.ParseUint(strings.TrimSuffix(rest, ".output"), 10, 64)
			return n, ok && err == nil
		}
	})
	r := newReport(t)
	argv, env := self(t, "clobber")
	s := w.spec(6, argv...)
	s.Env, s.Files = env, []File{r.file()}
	p := w.start(s)
	r.number()
	for range 2 { // the second time with the path gone
		running, err := w.Running()
		if err != nil || len(running) != 1 || running[0] != (Found{6, "", p.Identity(), true}) {
			t.Errorf("found %+v (%v)", running, err)
		}
		_ = os.Remove(w.fifo(6))
	}
	strays, err := w.Sweep(nil)
	if err != nil || len(strays) != 1 || strays[0].Generation != 6 {
		t.Errorf("swept %+v (%v)", strays, err)
	}
	w.done(p)
}

// An inode number is given away when its file is gone, and the FIFO of a
// generation that has ended must not be taken for another's.
func TestOutputIsNotRecycledBeforeClear(t *testing.T) {
	w := newWorld(t)
	p := w.start(w.spec(1, "true"))
	w.done(p)
	for i := range 50 {
		path := w.path("fifo" + strconv.Itoa(i))
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Ino == p.out.ino && st.Dev == p.out.dev {
			t.Fatalf("fifo %d has the same inode (%v)", i, err)
		}
	}
}

// After Clear neither numbers nor marks mean this process any more.
func TestClearedProcessOwnsNothing(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.spec(1, "true"))
	w.done(first)
	if err := first.Clear(); err != nil {
		t.Fatal(err)
	}
	second := w.start(w.spec(1, "sleep", "1000"))
	// Let nothing but the marks tell them apart.
	children.track(second, false)
	defer children.track(second, true)
	if first.Owns(second.Identity().PID) {
		t.Error("it owns the next run")
	}
	if err := first.Kill(); err != nil {
		t.Error(err)
	}
	if err := second.Signal(0); err != nil {
		t.Error(err)
	}
}

// A process without any mark is known by its parent, which must be seen before
// a signal ends the parent.
func TestSignalRemembersTheTree(t *testing.T) {
	w := newWorld(t)
	r := newReport(t)
	w.start(w.spec(2, "sleep", "1000")) // so that an orphan may be this one's
	s := w.spec(1, "sh", "-c", `setsid env -i sh -c 'echo $$ >&3; exec sleep 1000' >/dev/null 2>&1 & wait`)
	s.Files = []File{r.file()}
	p := w.start(s)
	child := watch(t, r.number())
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.done(p)
	child.mustLive()
	if err := p.Clear(); err != nil {
		t.Fatal(err)
	}
	child.mustEnd()
}
