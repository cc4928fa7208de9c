package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// orders are what a fake proxyd, a second process of this binary, is to do.
type orders struct {
	Verb     string // "start", "start and hold before the go", "adopt"
	Marker   string
	Spec     Spec
	Identity Identity
}

// fakeProxyd does what its orders say and tells of it in lines on its standard
// output: "recorded IDENTITY", "started", "adopted", "output LINE", and after
// "stop" on its input "ended". It then goes on until its input ends.
func fakeProxyd() error {
	var o orders
	if err := json.Unmarshal([]byte(os.Getenv("PROCESS_TEST_ORDERS")), &o); err != nil {
		return err
	}
	d, err := New(Config{Marker: o.Marker, Output: prefixed{}})
	if err != nil {
		return err
	}
	defer d.Close()
	var p *Process
	if o.Verb == "adopt" {
		p, err = d.Adopt(o.Identity, o.Spec.Generation, o.Spec.OutputPath)
	} else {
		p, err = d.Start(context.Background(), o.Spec, func(id Identity) error {
			b, err := json.Marshal(id)
			fmt.Printf("recorded %s\n", b)
			if o.Verb != "start" {
				sleepForEver()
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	fmt.Println(strings.Fields(o.Verb)[0] + "ed")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := p.Signal(unix.SIGTERM); err != nil {
			return err
		}
		<-p.Done()
		if err := p.Clear(); err != nil {
			return err
		}
		fmt.Println("ended", p.Exit(), p.LastLines())
	}
	return in.Err()
}

// prefixed writes lines to standard output as the fake's.
type prefixed struct{}

func (prefixed) Write(b []byte) (int, error) {
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		fmt.Println("output " + line)
	}
	return len(b), nil
}

// fake is a running fake proxyd.
type fake struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (w *world) fake(o orders) *fake {
	w.t.Helper()
	o.Marker = w.path("control.sock")
	b, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	argv, env := self(w.t, "proxyd", "PROCESS_TEST_ORDERS="+string(b))
	cmd := exec.Command(argv[0])
	cmd.Env, cmd.Stderr = env, os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		w.t.Fatal(err)
	}
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	f := &fake{w.t, cmd, in, bufio.NewReader(out)}
	w.t.Cleanup(f.kill)
	return f
}

// expect reads a line that begins with word and gives the rest.
func (f *fake) expect(word string) string {
	f.t.Helper()
	line, err := f.out.ReadString('\n')
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), word)
	if err != nil || !ok {
		f.t.Fatalf("fake proxyd says %q (%v), want %q", line, err, word)
	}
	return strings.TrimPrefix(rest, " ")
}

func (f *fake) identity() (id Identity) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.expect("recorded")), &id); err != nil {
		f.t.Fatal(err)
	}
	return id
}

// kill is kill -9.
func (f *fake) kill() {
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait()
}

func TestProxydKilledBeforeTheGo(t *testing.T) {
	w := newWorld(t)
	s := w.spec(1, "sh", "-c", "touch ran; sleep 1000")
	s.Dir = w.dir
	f := w.fake(orders{Verb: "start and hold before the go", Spec: s})
	id := f.identity()
	stub := watch(t, id.PID)
	f.kill()
	// At once, when the stub may not have seen it yet.
	if _, err := w.Adopt(id, 1, w.fifo(1)); !errors.Is(err, ErrGone) {
		t.Errorf("adopted: %v", err)
	}
	stub.mustEnd()
	noFile(t, w.path("ran"))
	if running, err := w.Running(); err != nil || len(running) > 0 {
		t.Errorf("running: %+v (%v)", running, err)
	}
}

func TestProxydKilledAfterTheGo(t *testing.T) {
	w := newWorld(t)
	tell := w.path("tell") // a FIFO on which the program is told to write on
	if err := unix.Mkfifo(tell, 0o600); err != nil {
		t.Fatal(err)
	}
	teller, err := os.OpenFile(tell, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer teller.Close()
	s := w.spec(5, "sh", "-c", `exec 5<"$0"; trap 'echo bye; exit 9' TERM; echo first
		(setsid sh -c 'trap "" TERM; echo $$ >escaped.new; mv escaped.new escaped; exec sleep 1000' &)
		while read x <&5; do echo "heard $x"; echo "err $x" >&2; echo "$x" >>heard; done`, tell)
	s.Dir = w.dir
	first := w.fake(orders{Verb: "start", Spec: s})
	id := first.identity()
	got := map[string]bool{first.expect(""): true, first.expect(""): true}
	if !got["started"] || !got["output first"] {
		t.Fatalf("first proxyd says %v", got)
	}
	program := watch(t, id.PID)
	first.kill()

	// Nobody reads, and it is not stopped by that.
	fmt.Fprintln(teller, "alone")
	eventually(t, "the program writes on", func() bool {
		b, _ := os.ReadFile(w.path("heard"))
		return string(b) == "alone\n"
	})
	program.mustLive()

	// The next proxyd finds it, by the identity and by its marks.
	running, err := w.Running()
	mains := 0
	for _, r := range running {
		if r.Main && r.Identity == id && r.Generation == 5 {
			mains++
		}
	}
	if err != nil || mains != 1 {
		t.Errorf("running: %+v (%v)", running, err)
	}
	second := w.fake(orders{Verb: "adopt", Spec: s, Identity: id})
	got = map[string]bool{}
	for range 3 { // what it wrote meanwhile is not lost
		line, err := second.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		got[line] = true
	}
	if !got["adopted\n"] || !got["output heard alone\n"] || !got["output err alone\n"] {
		t.Errorf("second proxyd says %v", got)
	}
	fmt.Fprintln(teller, "again")
	second.expect("output heard again")
	second.expect("output err again")

	eventually(t, "the escaped process tells its pid", func() bool {
		_, err := os.Stat(w.path("escaped"))
		return err == nil
	})
	var pid int
	b, _ := os.ReadFile(w.path("escaped"))
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	escaped := watch(t, pid)
	fmt.Fprintln(second.in, "stop")
	second.expect("output bye")
	if got, want := second.expect("ended"), "ended [heard alone err alone heard again err again bye]"; got != want {
		t.Errorf("it ended with %q, want %q", got, want)
	}
	program.mustEnd()
	escaped.mustEnd()
	noFile(t, w.fifo(5))
	if _, err := w.Adopt(id, 5, w.fifo(5)); !errors.Is(err, ErrGone) {
		t.Errorf("adopted: %v", err)
	}
}

// systemd removes a runtime directory while the program runs on.
func TestOutputIsFoundWithoutItsPath(t *testing.T) {
	w := newWorld(t)
	first, err := New(Config{Marker: w.path("control.sock")})
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(t)
	s := w.spec(1, "sh", "-c", `exec >&3; trap 'echo bye >&2; exit 9' TERM; echo up; while :; do sleep 1000 & wait; done`)
	s.Files = []File{r.file()} // its standard output is a pipe, but not the one
	p, err := first.Start(context.Background(), s, recorded)
	if err != nil {
		t.Fatal(err)
	}
	r.line()
	first.Close()
	if err := os.Remove(w.fifo(1)); err != nil {
		t.Fatal(err)
	}
	// The runtime directory may be known by another name: /var/run is /run.
	if err := os.Symlink(w.dir, w.path("link")); err != nil {
		t.Fatal(err)
	}
	q, err := w.Adopt(p.Identity(), 1, strings.Replace(w.fifo(1), w.dir, w.path("link"), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// It is our child, as after an exec of proxyd in place, so this is known.
	if e := w.done(q); e != (Exit{Known: true, Code: 9}) {
		t.Errorf("exit is %+v", e)
	}
	if got := q.LastLines(); len(got) != 1 || got[0] != "bye" {
		t.Errorf("last lines are %q", got)
	}
	if err := q.Clear(); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

func TestRecycledPidIsNotAdopted(t *testing.T) {
	w := newWorld(t)
	cmd := sleeper(t, "PROXYD_CONTROL="+w.path("other"))
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	right, err := identify(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Identity){
		"start time": func(i *Identity) { i.StartTime++ },
		"boot":       func(i *Identity) { i.BootID = "00000000-0000-0000-0000-000000000000" },
		"pid":        func(i *Identity) { i.PID = 1 << 30 },
		"zero":       func(i *Identity) { *i = Identity{} },
		"negative":   func(i *Identity) { i.PID = -1 },
	} {
		id := right
		change(&id)
		if _, err := w.Adopt(id, 1, w.fifo(1)); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
		// And none of these is what would be killed.
		if id.PID == right.PID && id.StartTime == right.StartTime {
			continue // of an earlier boot, which killOne is never given
		}
		if fd, err := killOne(stat{pid: id.PID, start: id.StartTime}); fd >= 0 || err != nil {
			t.Errorf("%s: killed (%v)", name, err)
		}
	}
	watch(t, s.pid).mustLive()
}
