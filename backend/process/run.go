package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxRunOutput is how much of a command's output Run keeps.
const maxRunOutput = 64 << 10

// Run runs a short command, such as a readiness check, and gives the beginning
// of what it wrote (64 KiB). The error says why it did not exit with 0. When the
// command has ended, or ctx has, its whole group is killed. With env's
// PROXYD_GENERATION its processes count as that generation's.
func (d *Driver) Run(ctx context.Context, argv, env []string) (output []byte, err error) {
	if d.isClosed() {
		return nil, ErrClosed
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("run command: open %s: %w", os.DevNull, err)
	}
	defer closeFD(null)
	written, end, err := statusPipe()
	if err != nil {
		return nil, fmt.Errorf("run command: %w", err)
	}
	defer written.Close()
	marks := []string{markControl + "=" + d.config.Marker}
	for _, v := range env {
		if strings.HasPrefix(v, markGeneration+"=") {
			marks = append(marks, v)
			break
		}
	}
	child, err := launch(ctx, launching{argv: argv, env: withMarks(env, marks...), marks: marks, stdin: null, output: end})
	closeFD(end)
	if child == nil {
		return nil, err
	}
	// If ctx has ended since the exec, what follows tells so.
	answer := make(chan []byte)
	go readOutput(written, answer)
	exit := awaitRun(ctx, child.pidfd)
	// The group's number is kept by the zombie, so this reaches no other.
	_ = unix.Kill(-child.id.PID, unix.SIGKILL)
	children.reap(child.id.PID)
	// Who left the group may hold the pipe for ever: take only what is there.
	_ = written.SetReadDeadline(time.Unix(1, 0))
	output = <-answer
	switch {
	case ctx.Err() != nil:
		return output, fmt.Errorf("run %s: %w", argv[0], context.Cause(ctx))
	case !exit.Known || exit.Signal != 0 || exit.Code != 0:
		return output, fmt.Errorf("run %s: %s", argv[0], exit)
	}
	return output, nil
}

// readOutput reads until all that hold the pipe have closed it, or the deadline
// is over and nothing is left, and answers with the beginning. Run waits for it.
func readOutput(r *os.File, answer chan<- []byte) {
	var kept []byte
	buf := make([]byte, 32<<10)
	for drained := 0; drained < maxDrain; {
		n, err := r.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = readNow(r, buf), nil
			if n == 0 {
				break
			}
			drained += n
		}
		kept = append(kept, buf[:min(n, maxRunOutput-len(kept))]...)
		if err != nil {
			break
		}
	}
	answer <- kept
}

// awaitRun waits until the process of pidfd has ended, and kills it when ctx
// ends. It closes pidfd.
func awaitRun(ctx context.Context, pidfd int) (exit Exit) {
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return Exit{}
	}
	kill := func() {
		_ = conn.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
	defer context.AfterFunc(ctx, kill)()
	_ = conn.Read(func(fd uintptr) (over bool) {
		exit, over = peekExit(int(fd))
		return over
	})
	return exit
}

func closeFD(fd int) { _ = unix.Close(fd) }
