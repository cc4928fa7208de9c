package activation

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// forkHolder starts a holder for StartHolder.
func forkHolder(argv, env []string, files []uintptr) (reap func(), err error) {
	pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{Env: env, Files: files})
	if err != nil {
		return nil, err
	}
	return func() {
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}, nil
}

// What a holder has is given to whoever asks next, and recovered from that, and it
// ends for nobody while a process lives that it was told to watch.
func TestHolder(t *testing.T) {
	members, err := ListenGroup("http", "127.0.0.1:0", 3)
	must(t, err)
	var fds []int
	var cookies []uint64
	for _, l := range members {
		c, err := l.Cookie()
		must(t, err)
		fds, cookies = append(fds, l.FD), append(cookies, c)
	}
	path := filepath.Join(t.TempDir(), "holder.sock")
	if h, held := FindHolder(path); h != nil || held != nil {
		t.Fatalf("where there is none: %v, %v", h, held)
	}
	first, err := StartHolder(path, fds, forkHolder)
	must(t, err)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("its path: %v, %v", st, err)
	}
	closeAll(t, members)

	watched := exec.Command("cat")
	in, err := watched.StdinPipe()
	must(t, err)
	must(t, watched.Start())
	pidfd, err := unix.PidfdOpen(watched.Process.Pid, 0)
	must(t, err)
	for range 2 { // one process, told of twice
		must(t, first.Watch(watched.Process.Pid, pidfd))
	}
	unix.Close(pidfd)

	second, held := FindHolder(path)
	if len(held) != len(fds) {
		t.Fatalf("it gives %v", held)
	}
	recovered, err := RecoverGroup("http", cookies, held...)
	must(t, err)
	for i, l := range recovered {
		if c, err := l.Cookie(); err != nil || c != cookies[i] {
			t.Fatalf("member %d has cookie %d, %v, want %d", i, c, err, cookies[i])
		}
	}
	closeAll(t, recovered)
	closeFDs(held)

	must(t, second.End()) // in vain
	third, held := FindHolder(path)
	if third != nil {
		t.Fatal("the path is left to a holder that nobody wants any more")
	}
	must(t, watched.Process.Signal(syscall.Signal(0)))
	select {
	case <-first.Gone():
		t.Fatal("it has ended before the process that it watches")
	default:
	}
	must(t, in.Close(), watched.Wait())
	must(t, first.End())
	if _, err := RecoverGroup("http", cookies); !errors.Is(err, ErrNotHeld) {
		t.Fatalf("after its end: %v", err)
	}
	closeFDs(held)
}

// A holder that nobody is connected to ends with the last process that it watches.
func TestAHolderEndsByItself(t *testing.T) {
	l, err := Listen("http", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	path := filepath.Join(t.TempDir(), "holder.sock")
	var reap func()
	h, err := StartHolder(path, []int{l.FD}, func(argv, env []string, files []uintptr) (func(), error) {
		r, err := forkHolder(argv, env, files)
		reap = r
		return func() {}, err
	})
	must(t, err)
	watched := exec.Command("cat")
	in, err := watched.StdinPipe()
	must(t, err)
	must(t, watched.Start())
	pidfd, err := unix.PidfdOpen(watched.Process.Pid, 0)
	must(t, err)
	defer unix.Close(pidfd)
	must(t, h.Watch(watched.Process.Pid, pidfd), h.Close())
	again, held := FindHolder(path)
	if len(held) != 1 {
		t.Fatalf("it gives %v after its starter has gone", held)
	}
	closeFDs(held)
	must(t, again.Close(), in.Close(), watched.Wait())
	reap()
	if h, held := FindHolder(path); h != nil {
		t.Fatalf("it is still there, with %v", held)
	}
}
