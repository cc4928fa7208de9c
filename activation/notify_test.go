package activation

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func self(pid int) bool { return pid == os.Getpid() }

// notifySocket opens one that this test speaks to.
func notifySocket(t *testing.T, trusted func(int) bool) *NotifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	s, err := ListenNotify(path, trusted)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	t.Setenv("NOTIFY_SOCKET", path)
	return s
}

// send sends a message with descriptors, as sd_pid_notify_with_fds(3) does.
func send(t *testing.T, message string, fds ...int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	must(t, unix.Sendmsg(fd, []byte(message), rights, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0))
}

// patience is how long a test waits before it gives up.
const patience = 30 * time.Second

func receive(t *testing.T, s *NotifySocket) Notification {
	t.Helper()
	select {
	case n := <-s.Notifications():
		return n
	case <-time.After(patience):
		t.Fatal("no notification came")
		return Notification{}
	}
}

// barrier gives the end of a pipe that is read at its end once every copy of
// the other one is closed.
func barrier(t *testing.T) (wait *os.File, pass int) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	pass, err = unix.Dup(int(w.Fd()))
	must(t, err, w.Close())
	t.Cleanup(func() { r.Close() })
	return r, pass
}

// barrierPassed reads a barrier's pipe to its end.
func barrierPassed(t *testing.T, wait *os.File) {
	t.Helper()
	must(t, wait.SetReadDeadline(time.Now().Add(patience)))
	if n, err := wait.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v, from a pipe that nobody holds", n, err)
	}
}

func TestNotifications(t *testing.T) {
	s := notifySocket(t, self)
	for _, c := range []struct {
		state string
		want  Notification
	}{
		{"READY=1", Notification{Ready: true}},
		{"STATUS=loading", Notification{Status: "loading"}},
		{"STOPPING=1\n", Notification{Stopping: true}},
		{"MAINPID=1\nREADY=1\nSTATUS=a=b\nX=y", Notification{Ready: true, Status: "a=b"}},
	} {
		must(t, Tell("WATCHDOG=1"), Tell(""), Tell("READY=0"), Tell(c.state)) // the first three say nothing
		c.want.PID = os.Getpid()
		if got := receive(t, s); got != c.want {
			t.Errorf("%q gives %+v, want %+v", c.state, got, c.want)
		}
	}
}

func TestNotificationsOfOthersAreIgnored(t *testing.T) {
	asked := make(chan int, 10)
	s := notifySocket(t, func(pid int) bool {
		asked <- pid
		return self(pid)
	})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"=tell", quickExit,
		"ACTIVATION_TEST_STATE=READY=1\nSTATUS=forged\nMAINPID=1")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, Tell("STATUS=mine"))
	if got := receive(t, s); got != (Notification{PID: os.Getpid(), Status: "mine"}) {
		t.Fatalf("got %+v", got)
	}
	if pid := <-asked; pid != cmd.Process.Pid {
		t.Fatalf("asked about process %d, the sender was %d", pid, cmd.Process.Pid)
	}
}

// A sender that waits for a barrier knows that all it said before was taken.
func TestBarrier(t *testing.T) {
	s := notifySocket(t, self)
	wait, pass := barrier(t)
	send(t, "READY=1")
	send(t, "BARRIER=1", pass)
	must(t, unix.Close(pass))

	must(t, wait.SetReadDeadline(time.Unix(1, 0)))
	if _, err := wait.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the barrier is passed before the message was taken: %v", err)
	}
	if got := receive(t, s); !got.Ready {
		t.Fatalf("got %+v", got)
	}
	barrierPassed(t, wait)
}

func TestPassedDescriptorsAreClosed(t *testing.T) {
	var trust atomic.Bool
	s := notifySocket(t, func(int) bool { return trust.Load() })
	for _, c := range []struct {
		name, message string
		copies        int
		trust         bool
	}{
		{"nothing of interest", "FDSTORE=1\nFDNAME=x", 1, true},
		{"as many as can be", "FDSTORE=1", maxRights, true},
		{"too long", "STATUS=" + strings.Repeat("x", maxMessage), 3, true},
		{"from elsewhere", "READY=1", 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			trust.Store(c.trust)
			wait, pass := barrier(t)
			fds := make([]int, c.copies)
			for i := range fds {
				fds[i] = pass
			}
			send(t, c.message, fds...)
			must(t, unix.Close(pass))
			barrierPassed(t, wait)
		})
	}
	trust.Store(true)
	must(t, Tell("READY=1"))
	if got := receive(t, s); !got.Ready || got.Status != "" {
		t.Fatalf("got %+v", got)
	}
}

func TestCloseWhileNobodyReceives(t *testing.T) {
	s := notifySocket(t, self)
	path := os.Getenv("NOTIFY_SOCKET")
	wait, pass := barrier(t)
	send(t, "READY=1", pass)
	must(t, unix.Close(pass), s.Close(), s.Close())
	barrierPassed(t, wait)
	if n, ok := <-s.Notifications(); ok {
		t.Fatalf("after Close: %+v", n)
	}
	<-s.Done()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("its file: %v", err)
	}
}

func TestListenNotifyAtATakenPath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "notify")
	dead := rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	must(t, unix.Bind(int(dead.Fd()), &unix.SockaddrUnix{Name: path}), dead.Close())

	s, err := ListenNotify(path, self)
	must(t, err)
	if _, err := ListenNotify(path, self); !errors.Is(err, ErrInUse) {
		t.Errorf("over a live one: %v", err)
	}
	info, err := os.Lstat(path)
	must(t, err, s.Close())
	if info.Mode().Perm() != 0o666 { // a program without its privileges must reach it
		t.Errorf("its mode is %v", info.Mode())
	}
	if _, err := ListenNotify(dir+"/"+strings.Repeat("x", 107), self); !errors.Is(err, ErrTooLong) {
		t.Errorf("a path too long: %v", err)
	}
	if _, err := ListenNotify(dir+"/none/notify", self); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestParseNotificationIsCareful(t *testing.T) {
	for in, want := range map[string]Notification{
		"STATUS=\x1b[31mred\tx\x7f": {Status: " [31mred x "},
		"STATUS=\xff":               {},
		"STATUS=é ✓":                {Status: "é ✓"},
		"READY=1 ":                  {},
		"ready=1":                   {},
		"READY=1\x00":               {},
		"\n\nREADY=1\n\n":           {Ready: true},
		"STATUS=a\nSTATUS=b":        {Status: "b"},
	} {
		if got, ok := parseNotification([]byte(in)); got != want || ok != (want != Notification{}) {
			t.Errorf("%q gives %+v, %v, want %+v", in, got, ok, want)
		}
	}
}

func FuzzParseNotification(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := parseNotification(b)
		if !ok && n != (Notification{}) {
			t.Fatalf("nothing of interest, and %+v", n)
		}
		if strings.ContainsAny(n.Status, "\n\r\x1b\x00") {
			t.Fatalf("the status is %q", n.Status)
		}
	})
}
