package booted

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed keep.sh
var keepScript string

//go:embed boot.sh
var bootScript string

//go:embed init.sh
var initScript string

// Machine is a private system that runs systemd. Its methods are not for use
// from several goroutines at once, but Command's commands may run at once.
type Machine struct {
	name, dir string
	unit      string

	keeper     *exec.Cmd
	keeperCord io.WriteCloser
	notify     string // path of the socket that systemd tells its state to

	boot  *boot
	holds string // the test binary that Within copied in
}

// boot is one run of systemd.
type boot struct {
	cord  io.WriteCloser
	ready *net.UnixConn // systemd tells here that it has booted
	heard chan struct{} // closed when listen has ended
	pid   int           // of PID 1, as seen from here
	root  *os.Root
	said  lockedBuffer
	ended chan struct{}
	err   error // valid after ended
}

// Config says what to boot.
type Config struct {
	// Unit is what systemd is told to reach; "" is basic.target.
	Unit string
}

// New makes a machine with an empty disk and boots it. ctx bounds the boot
// only. The caller must Close it; should the caller be killed, the machine goes
// down with it.
func New(ctx context.Context, c Config) (_ *Machine, err error) {
	if c.Unit == "" {
		c.Unit = "basic.target"
	}
	dir, err := os.MkdirTemp("", "booted-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	m := &Machine{name: filepath.Base(dir), dir: dir, unit: c.Unit}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := m.keep(); err != nil {
		return nil, err
	}
	// In the keeper's eyes, for the directory is another one there.
	m.notify = fmt.Sprintf("/proc/%d/root%s/host/notify", m.keeper.Process.Pid, dir)
	return m, m.Boot(ctx)
}

// keep starts the process that holds the machine's disk.
func (m *Machine) keep() error {
	m.keeper = exec.Command("sh", "-c", keepScript, "sh", m.dir)
	m.keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setpgid: true}
	var said bytes.Buffer
	m.keeper.Stderr = &said
	out, err := m.keeper.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if m.keeperCord, err = m.keeper.StdinPipe(); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := m.keeper.Start(); err != nil {
		m.keeper = nil
		return fmt.Errorf("hold disk: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = m.keeper.Wait()
		m.keeper = nil
		return fmt.Errorf("hold disk: %w: %s%s", err, line, said.String())
	}
	return nil
}

// Boot boots the machine, which must be down, and returns when systemd says
// that it has started up.
func (m *Machine) Boot(ctx context.Context) error {
	if m.boot != nil {
		return errors.New("boot: the machine is up")
	}
	b := &boot{ended: make(chan struct{}), heard: make(chan struct{})}
	// A new one each time, so that nothing which an earlier boot said is in it.
	_ = os.Remove(m.notify)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("boot: listen for its end: %w", err)
	}
	b.ready = ready
	defer func() {
		if m.boot != b { // nobody will cut it
			_ = ready.Close()
		}
	}()
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(m.keeper.Process.Pid), "-m", "--",
		"sh", "-c", bootScript, "sh", m.dir, m.name, m.unit, initScript)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	told := make(chan int, 1)
	cmd.Stdout, cmd.Stderr = &firstLine{to: &b.said, told: told}, &b.said
	// Somebody who was started from inside and holds these open does not keep
	// the machine from being known to be down.
	cmd.WaitDelay = time.Second
	cord, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	b.cord = cord
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	m.boot = b
	go b.wait(cmd)
	up := make(chan struct{})
	go b.listen(up)
	select {
	case b.pid = <-told:
		select {
		case <-up:
		case <-ctx.Done():
			err = ctx.Err()
		case <-b.ended:
			err = errors.New("it went down")
		}
	case <-ctx.Done():
		err = ctx.Err()
	case <-b.ended:
		err = errors.New("it went down")
	}
	if err == nil {
		b.root, err = os.OpenRoot(fmt.Sprintf("/proc/%d/root", b.pid))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("boot: %w: %s", err, b.said.String()), m.Cut())
	}
	return nil
}

// wait ends when boot.sh has, and tells who waits on ended.
func (b *boot) wait(cmd *exec.Cmd) {
	b.err = cmd.Wait()
	close(b.ended)
}

// listen closes up when systemd sends READY=1 (it does so for a container manager
// at the end of its startup) and reads on: systemd says more as long as it runs,
// how its jobs get on and READY=1 after each daemon-reexec, and PID 1 stands still
// once nobody takes that. It ends when Cut closes the socket, and Cut waits.
func (b *boot) listen(up chan<- struct{}) {
	defer close(b.heard)
	booted := false
	buf := make([]byte, 4096)
	for {
		n, err := b.ready.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			if line == "READY=1" && !booted {
				booted = true
				close(up)
			}
		}
	}
}

// PID is PID 1's number as seen from outside; 0 when the machine is down.
func (m *Machine) PID() int {
	if m.boot == nil {
		return 0
	}
	return m.boot.pid
}

// Stop shuts the machine down as a poweroff does and keeps its disk. When ctx
// ends before that is done, the power is cut.
func (m *Machine) Stop(ctx context.Context) error {
	if m.boot == nil {
		return nil
	}
	// SIGRTMIN+4 is poweroff.target, see systemd(1); glibc's SIGRTMIN is 34.
	if err := syscall.Kill(m.boot.pid, 38); err != nil {
		return errors.Join(fmt.Errorf("stop: %w", err), m.Cut())
	}
	select {
	case <-m.boot.ended:
		return m.Cut()
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop: %w", ctx.Err()), m.Cut())
	}
}

// Cut ends everything in the machine at once, as a power cut would, and keeps
// its disk. The error says what could not be cleaned up.
func (m *Machine) Cut() error {
	b := m.boot
	if b == nil {
		return nil
	}
	_ = b.cord.Close()
	<-b.ended
	_ = b.ready.Close()
	<-b.heard
	m.boot = nil
	if b.root != nil {
		_ = b.root.Close()
	}
	if b.err != nil {
		return fmt.Errorf("end machine: %w: %s", b.err, b.said.String())
	}
	return nil
}

// Close cuts the power and gives up the disk. Nothing is left of the machine.
func (m *Machine) Close() error {
	err := m.Cut()
	if m.keeper != nil {
		_ = m.keeperCord.Close()
		if e := m.keeper.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("give up disk: %w", e))
		}
		m.keeper = nil
	}
	// Remove, not RemoveAll: it must be the empty directory of before.
	if e := os.Remove(m.dir); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}
