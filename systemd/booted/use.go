package booted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var errDown = errors.New("the machine is down")

// Command is exec.CommandContext for inside the machine: all of PID 1's
// namespaces, working directory /. The command itself is of no unit, its control
// group is outside; systemd-run makes one that is of a unit.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := append([]string{"-t", strconv.Itoa(m.PID()), "-a", "--wd=/", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = environment()
	// nsenter becomes the parent of what it runs, for the sake of the pid
	// namespace: both must end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// environment is what a command inside gets: nothing that names this machine's
// own files, buses or sockets.
func environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0",
	}
	for _, name := range []string{"GORACE", "GOTRACEBACK", "GODEBUG", "GOMAXPROCS", "PROXYD_TEST_REQUIRE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Run runs a command inside and gives what it wrote; the test fails at once if
// it does not exit with 0.
func (m *Machine) Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := m.Try(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try runs a command inside and gives what it wrote to standard output. The
// error holds what it wrote to standard error.
func (m *Machine) Try(ctx context.Context, argv ...string) (string, error) {
	cmd := m.Command(ctx, argv...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w\n%s%s", strings.Join(argv, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// WriteFile writes a file inside, whole directories included. No link in name
// can lead out of the machine.
func (m *Machine) WriteFile(name, content string, mode os.FileMode) error {
	return m.write(name, strings.NewReader(content), mode)
}

// CopyIn copies one of this machine's files to name inside, with its mode.
func (m *Machine) CopyIn(from, name string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return m.write(name, f, info.Mode().Perm())
}

func (m *Machine) write(name string, from io.Reader, mode os.FileMode) error {
	if m.boot == nil {
		return errDown
	}
	name = strings.TrimPrefix(path.Clean(name), "/")
	root := m.boot.root
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	// Replaced, not overwritten: a program that runs is "text file busy".
	if err := root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, from); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// Unit writes unit files to /etc/systemd/system and has systemd read them;
// files are name and content in turn.
func (m *Machine) Unit(t testing.TB, files ...string) {
	t.Helper()
	for i := 0; i+1 < len(files); i += 2 {
		if err := m.WriteFile("/etc/systemd/system/"+files[i], files[i+1], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.Run(t, "systemctl", "daemon-reload")
}

// Journal gives the machine's journal of all boots; args go to journalctl(1).
func (m *Machine) Journal(ctx context.Context, args ...string) string {
	if m.boot == nil {
		return errDown.Error()
	}
	_, _ = m.Try(ctx, "journalctl", "--sync")
	out, err := m.Try(ctx, append([]string{"journalctl", "--no-pager", "-o", "short-precise"}, args...)...)
	if err != nil {
		return err.Error()
	}
	return out
}
