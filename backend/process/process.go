package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// File is a descriptor that is handed to a program as systemd would
// (sd_listen_fds(3)). It is borrowed; its flags are not changed.
type File struct {
	Name string // for LISTEN_FDNAMES
	FD   int
}

// Spec says what to start.
type Spec struct {
	// Generation is exported as PROXYD_GENERATION.
	Generation uint64
	// Argv is the command. A name without a slash is looked for in the PATH of
	// Env; one with a slash that is not absolute counts from Dir.
	Argv []string
	// Env is the whole environment. PROXYD_CONTROL, PROXYD_GENERATION,
	// PROXYD_PID and, with Files, LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are
	// set in it; those that it holds are taken out.
	Env []string
	// Dir is the working directory. Default: proxyd's own.
	Dir string
	// Files become descriptors 3 and up.
	Files []File
	// Kept are descriptors that the program inherits behind Files without being
	// told of, so that they stay open while no proxyd runs. Borrowed.
	Kept []int
	// OutputPath is where the FIFO for standard output and error is made, mode
	// 0600. Its directory must exist. The FIFO is removed when the process has
	// ended. Required.
	OutputPath string
}

// Exit tells how a process ended.
type Exit struct {
	Known  bool           // false for one that is not our child: nobody tells us
	Code   int            // where Signal is 0
	Signal syscall.Signal // that ended it
}

func (e Exit) String() string {
	switch {
	case !e.Known:
		return "ended"
	case e.Signal != 0:
		return fmt.Sprintf("signal %d (%s)", int(e.Signal), e.Signal)
	default:
		return "exit status " + strconv.Itoa(e.Code)
	}
}

// Process is a generation's main process with all that it forks. After Done is
// closed, Clear must be called.
type Process struct {
	driver     *Driver
	generation uint64
	id         Identity
	child      bool // we are its parent
	pidfd      *os.File
	out        *output // nil where it could not be opened again

	done   chan struct{}
	exit   Exit          // set before done is closed
	waited chan struct{} // closed when wait has ended

	mu       sync.Mutex
	known    map[int]uint64 // start times of those that belong to it
	released bool           // nothing is held any more that makes marks unique

	clearing sync.Mutex // one Clear at a time
	cleared  bool
}

// Start starts a program. record is called with the identity of its process
// before the program runs in it; if it gives an error nothing runs. An error
// means that no process and no FIFO is left. ctx ends the start only.
func (d *Driver) Start(ctx context.Context, spec Spec, record func(Identity) error) (*Process, error) {
	if d.isClosed() {
		return nil, ErrClosed
	}
	path, err := outputPath(spec.OutputPath)
	if err != nil {
		return nil, fmt.Errorf("start generation %d: %w", spec.Generation, err)
	}
	marks := []string{markControl + "=" + d.config.Marker, markGeneration + "=" + strconv.FormatUint(spec.Generation, 10)}
	l := launching{
		argv: spec.Argv, env: withMarks(spec.Env, marks...), marks: marks,
		dir: spec.Dir, files: spec.Files, kept: spec.Kept, record: record, executed: d.executed,
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	out, err := makeOutput(path, d.writeLines)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	go out.read()
	child, err := launchWith(ctx, l, out)
	if child == nil {
		out.end()
		out.close()
		return nil, err
	}
	p := d.newProcess(spec.Generation, child.id, child.pidfd, true, out)
	if err != nil { // cancelled when it ran already, and may have forked
		if killErr := p.Kill(); killErr != nil {
			return nil, errors.Join(err, killErr)
		}
		return nil, errors.Join(err, p.Clear())
	}
	return p, nil
}

// launchWith launches with an empty input and the given output.
func launchWith(ctx context.Context, l launching, out *output) (*launched, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: open %s: %w", l.argv[0], os.DevNull, err)
	}
	defer unix.Close(null)
	end, err := out.childEnd()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", l.argv[0], err)
	}
	defer unix.Close(end)
	l.stdin, l.output = null, end
	return launch(ctx, l)
}

// newProcess takes over pidfd and out, whose reader runs.
func (d *Driver) newProcess(generation uint64, id Identity, pidfd int, child bool, out *output) *Process {
	p := &Process{
		driver: d, generation: generation, id: id, child: child, out: out,
		pidfd: os.NewFile(uintptr(pidfd), "pidfd"),
		done:  make(chan struct{}), waited: make(chan struct{}),
		known: map[int]uint64{id.PID: id.StartTime},
	}
	children.track(p, true)
	go p.wait()
	return p
}

// wait waits for the exit. A child is not reaped yet, see Clear. It ends with
// the process or when the Driver is closed; release waits for it.
func (p *Process) wait() {
	defer close(p.waited)
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	// A pidfd is readable once its process has exited (pidfd_open(2)), so the
	// runtime's poller calls back then.
	over := false
	_ = conn.Read(func(f uintptr) bool {
		if p.child {
			p.exit, over = peekExit(int(f))
		} else {
			over = ended(int(f))
		}
		return over
	})
	if !over {
		return
	}
	if p.out != nil {
		p.out.end()
	}
	close(p.done)
}

// Identity names the main process.
func (p *Process) Identity() Identity { return p.id }

// Done is closed when the main process has ended and what it wrote was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how it ended. It is valid once Done is closed.
func (p *Process) Exit() Exit {
	select {
	case <-p.done:
		return p.exit
	default:
		return Exit{}
	}
}

// LastLines gives the last 20 lines that were written since the start or the
// adoption, without control characters and cut at 1 KiB.
func (p *Process) LastLines() []string { return p.out.lines() }

// Signal sends a signal to the main process and its whole group, or gives
// ErrGone.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return fmt.Errorf("signal process %d: %w", p.id.PID, ErrGone)
	default:
	}
	if all, err := processes(); err == nil {
		p.notice(all) // what is orphaned by its end must be known before
	}
	if err := p.signalGroup(sig); err != nil {
		return fmt.Errorf("signal process %d: %w", p.id.PID, err)
	}
	return nil
}

// signalGroup sends to the group that the main process leads, and to the main
// process where it has gone to another group.
func (p *Process) signalGroup(sig syscall.Signal) error {
	var failed error
	err := p.control(func(pidfd int) {
		// Since Linux 6.9 the descriptor also names the group (pidfd_send_signal(2)).
		failed = unix.PidfdSendSignal(pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
		if errors.Is(failed, unix.EINVAL) {
			if !p.child && ended(pidfd) {
				failed = ErrGone
				return
			}
			// Our child keeps the number until Clear, so this is exact. For one
			// that was adopted there is an instant between look and signal.
			failed = unix.Kill(-p.id.PID, sig)
		}
		if s, err := readStat(p.id.PID); errors.Is(failed, unix.ESRCH) || err == nil && s.start == p.id.StartTime && s.pgrp != p.id.PID {
			failed = unix.PidfdSendSignal(pidfd, sig, nil, 0)
		}
	})
	if errors.Is(err, os.ErrClosed) || errors.Is(failed, unix.ESRCH) {
		return ErrGone
	}
	return errors.Join(err, failed)
}

// control runs f with the pidfd, which cannot be closed meanwhile.
func (p *Process) control(f func(pidfd int)) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) { f(int(fd)) })
}

// release gives up the descriptors and, where it has ended, the zombie.
func (p *Process) release() {
	p.mu.Lock()
	p.released = true
	clear(p.known)
	p.mu.Unlock()
	_ = p.pidfd.Close()
	<-p.waited
	select {
	case <-p.done:
		if p.child {
			children.reap(p.id.PID)
		}
	default:
	}
	if p.out != nil {
		p.out.close()
	}
	children.track(p, false)
}
