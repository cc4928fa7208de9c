package booted_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/systemd/booted"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(booted.Run(m.Run)) }

func TestWithinRunsInsideTheMachine(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		comm, err := os.ReadFile("/proc/1/comm")
		if err != nil || string(comm) != "systemd\n" {
			t.Errorf("PID 1 is %q, %v", comm, err)
		}
		if out, err := exec.Command("systemctl", "is-system-running").CombinedOutput(); err != nil {
			t.Errorf("the system is %s: %v", out, err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:443") // lo is up, and nobody else's
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := os.WriteFile("/proc/sys/kernel/printk_ratelimit", []byte("5"), 0o644); err == nil {
			t.Error("a setting of the kernel's can be written")
		}
	})
}

// What a boot, a test and an end do is seen by nobody outside: Run looks at what
// came of it, with all that the other tests do.
func TestTheMachineOutsideIsUntouched(t *testing.T) {
	booted.Shared(t) // to be skipped where it would be
	sentinel := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(sentinel, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Old enough for any cleaning of /tmp.
	old := time.Now().Add(-1000 * time.Hour)
	if err := os.Chtimes(sentinel, old, old); err != nil {
		t.Fatal(err)
	}

	m, err := booted.New(t.Context(), booted.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Unit(t, "mark.service", "[Service]\nType=oneshot\nRuntimeDirectory=mark\nRuntimeDirectoryPreserve=yes\n"+
		"ExecStart=touch /tmp/booted-mark /run/booted-mark /etc/booted-mark /var/tmp/booted-mark /usr/lib/systemd/booted-mark\n"+
		"ExecStart=chmod o-r /etc/passwd\nExecStart=rm -r /var/lib/dpkg\nPrivateTmp=no\n")
	m.Run(t, "systemctl", "start", "mark.service")
	m.Run(t, "systemd-tmpfiles", "--create", "--clean")
	m.Run(t, "ls", "/tmp/booted-mark", "/run/mark", "/etc/booted-mark")
	if out, err := m.Try(t.Context(), "ls", sentinel); err == nil {
		t.Errorf("this machine's /tmp is seen inside: %s", out)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(sentinel); err != nil || !info.ModTime().Equal(old) {
		t.Error(info, err)
	}
}

func TestTheDiskOutlivesABoot(t *testing.T) {
	m := booted.Shared(t)
	if err := m.WriteFile("/etc/booted-state", "kept\n", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteFile("/run/booted-state", "lost\n", 0o600); err != nil {
		t.Fatal(err)
	}
	before := m.Run(t, "cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
	for _, down := range []func(context.Context) error{m.Stop, func(context.Context) error { return m.Cut() }} {
		m.Run(t, "systemctl", "daemon-reexec") // after it systemd says READY=1 again
		if err := down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m.PID() != 0 {
			t.Error("PID 1 is still known")
		}
		if err := m.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := m.Run(t, "systemctl", "is-active", "basic.target"); got != "active\n" {
			t.Errorf("Boot has returned, and basic.target is %s", got)
		}
		if got := m.Run(t, "cat", "/etc/booted-state"); got != "kept\n" {
			t.Errorf("the file holds %q", got)
		}
		if out, err := m.Try(t.Context(), "cat", "/run/booted-state"); err == nil {
			t.Errorf("/run was kept: %s", out)
		}
		// The kernel's own boot id cannot change, the machine's id must not.
		if got := m.Run(t, "cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"); got != before {
			t.Errorf("was %s is %s", before, got)
		}
	}
}

// PID 1 says how it is as long as it runs, and would stand still for ever where
// that is taken from it only while it boots.
func TestWhatSystemdSaysIsTakenAllTheTime(t *testing.T) {
	m := booted.Shared(t)
	most, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen") // so many wait in the socket, unix(7)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := strconv.Atoi(strings.TrimSpace(string(most)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unixgram", fmt.Sprintf("/proc/%d/root/run/host/notify", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for i := range 3*queue + 10 {
		if _, err := conn.Write([]byte("STATUS=a job takes its time")); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	m.Run(t, "systemctl", "daemon-reexec") // it says READY=1 on the same socket
	m.Run(t, "systemctl", "daemon-reload")
}

// A link inside that leads out by an absolute name is not followed.
func TestWriteFileStaysInside(t *testing.T) {
	m := booted.Shared(t)
	outside := filepath.Join(t.TempDir(), "x")
	m.Run(t, "ln", "-sfn", filepath.Dir(outside), "/etc/booted-link")
	if err := m.WriteFile("/etc/booted-link/x", "x", 0o644); err == nil {
		t.Error("a file was written through the link")
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("the file is outside")
	}
}

// Whoever holds the machine may be killed at any time; then the power goes.
func TestTheMachineEndsWithItsUser(t *testing.T) {
	if os.Getenv("BOOTED_TEST_HOLD") != "" {
		m, err := booted.New(t.Context(), booted.Config{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("\nholding", m.PID())
		select {} // until killed
	}
	booted.Shared(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestTheMachineEndsWithItsUser$", "-test.v")
	cmd.Env = append(os.Environ(), "BOOTED_TEST_HOLD=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "holding %d", &pid)
	}
	if pid == 0 {
		_ = cmd.Process.Kill()
		t.Fatal("it held no machine:", cmd.Wait())
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	// A pidfd becomes readable when its process has ended.
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
	if n != 1 || err != nil {
		t.Errorf("PID 1 runs on after its user was killed: %d, %v", n, err)
	}
}
