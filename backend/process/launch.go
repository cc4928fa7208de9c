package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// markControl, markGeneration and markRelease are the variables by which a
// process is known; PROXYD_PID, which the stub sets, tells the main process.
const (
	markControl    = "PROXYD_CONTROL"
	markGeneration = "PROXYD_GENERATION"
	markRelease    = "PROXYD_RELEASE"
	markMain       = "PROXYD_PID"
)

// launching is a command to be launched.
type launching struct {
	argv, env []string
	marks     []string // variables that the stub has already
	dir       string
	stdin     int
	output    int // becomes standard output and error
	files     []File
	kept      []int                // behind files, and not named
	record    func(Identity) error // may be nil
	executed  func()               // may be nil; a test cancels here
}

// launched is a child that has become its program. Its holder owns pidfd and
// reaps it with children.reap.
type launched struct {
	id    Identity
	pidfd int
}

// check refuses what execve(2) and LISTEN_FDNAMES cannot carry.
func (l *launching) check() error {
	if len(l.argv) == 0 || l.argv[0] == "" {
		return errors.New("start: no command is given")
	}
	for _, s := range append(append([]string{l.dir}, l.argv...), l.env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("start %s: %q holds a zero byte", l.argv[0], s)
		}
	}
	for _, f := range l.files {
		if strings.ContainsFunc(f.Name, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }) {
			return fmt.Errorf("start %s: descriptor name %q holds a colon, a space or a control byte", l.argv[0], f.Name)
		}
	}
	return nil
}

// launch starts the stub, has its identity recorded, and lets it exec. ctx is
// for the start only. When it gives no child, no process is left. When it gives
// a child and an error, ctx has ended after the exec: the main process is killed,
// and the caller ends what that may have forked.
func launch(ctx context.Context, l launching) (child *launched, err error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	fail := func(err error) error { return fmt.Errorf("start %s: %w", l.argv[0], err) }
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}
	stubRequests, requests, err := pipe(1)
	if err != nil {
		return nil, fail(err)
	}
	defer requests.Close()
	status, stubStatus, err := statusPipe()
	if err != nil {
		unix.Close(stubRequests)
		return nil, fail(err)
	}
	defer status.Close()

	files := []uintptr{uintptr(l.stdin), uintptr(l.output), uintptr(l.output)}
	for _, f := range l.files {
		files = append(files, uintptr(f.FD))
	}
	for _, fd := range l.kept {
		files = append(files, uintptr(fd))
	}
	files = append(files, uintptr(stubRequests), uintptr(stubStatus))
	pid, pidfd, err := children.fork([]string{launchName, strconv.Itoa(len(l.files) + len(l.kept))}, l.marks, files)
	unix.Close(stubRequests)
	unix.Close(stubStatus)
	if err != nil {
		return nil, fail(err)
	}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		close(cancelled)
	})
	defer func() {
		if !stop() {
			<-cancelled
			err = fail(context.Cause(ctx))
		}
		if child == nil {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			children.reap(pid)
			unix.Close(pidfd)
		}
	}()

	s, err := readStat(pid)
	if err != nil {
		return nil, fail(err)
	}
	id, err := identify(s)
	if err != nil {
		return nil, fail(err)
	}
	if l.record != nil {
		if err := l.record(id); err != nil {
			return nil, fail(fmt.Errorf("record identity: %w", err))
		}
	}
	if err := l.ask(requests); err != nil {
		return nil, fail(fmt.Errorf("send request to launch stub: %w", err))
	}
	if err := outcome(status); err != nil {
		return nil, fail(err)
	}
	if l.executed != nil {
		l.executed()
	}
	return &launched{id: id, pidfd: pidfd}, nil
}

// ask writes the request and closes the pipe.
func (l *launching) ask(requests *os.File) error {
	r := request{Argv: byteLists(l.argv), Env: byteLists(l.env), Dir: []byte(l.dir)}
	for _, f := range l.files {
		r.Names = append(r.Names, f.Name)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := requests.Write(b); err != nil {
		return err
	}
	return requests.Close()
}

// outcome waits for the exec. The stub's end of the pipe is close-on-exec, so
// it ends when the program runs, or when the stub has died.
func outcome(status io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(status, 64<<10))
	switch {
	case err != nil:
		return fmt.Errorf("read answer of launch stub: %w", err)
	case len(b) == 0:
		return errors.New("launch stub has died")
	case len(b) == 1 && b[0] == aboutToExec:
		return nil
	case b[0] == aboutToExec:
		b = b[1:]
	}
	var f failure
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("read answer of launch stub: %w", err)
	}
	err = syscall.Errno(f.Errno)
	if f.Hint != "" {
		err = fmt.Errorf("%w (%s)", err, f.Hint)
	}
	if f.Step != "" {
		err = fmt.Errorf("%s: %w", f.Step, err)
	}
	return err
}

// pipe gives a pipe with one raw, blocking end for the child (0: it writes, 1:
// it reads) and one for the runtime's poller. The caller closes both.
func pipe(childReads int) (child int, ours *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("make pipe: %w", err)
	}
	child, mine := p[1-childReads], p[childReads]
	if err := unix.SetNonblock(mine, true); err != nil {
		unix.Close(child)
		unix.Close(mine)
		return -1, nil, fmt.Errorf("make pipe: %w", err)
	}
	return child, os.NewFile(uintptr(mine), "pipe"), nil
}

func statusPipe() (ours *os.File, child int, err error) {
	child, ours, err = pipe(0)
	return ours, child, err
}

func byteLists(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

// withMarks gives env with the given variables set, each once.
func withMarks(env []string, marks ...string) []string {
	out := make([]string, 0, len(env)+len(marks))
next:
	for _, v := range env {
		for _, m := range marks {
			if name, _, _ := strings.Cut(m, "="); strings.HasPrefix(v, name+"=") {
				continue next
			}
		}
		out = append(out, v)
	}
	return append(out, marks...)
}
