package control

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// noPeerPidfd is what a kernel before 6.5 says.
func noPeerPidfd(int) (int, error) { return -1, unix.ENOPROTOOPT }

// sleeper is a process that does nothing until its end.
func sleeper(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// Where the kernel does not hold the process that connected, it must have begun
// before its connection was accepted: else its number is another's by now.
func TestAHandoverOnAnOldKernel(t *testing.T) {
	for _, c := range []struct {
		accepted uint64
		refusal  string
	}{
		{bootTicks(), ""},
		{0, "another one's number by now"},
	} {
		var asked atomic.Int64
		_, path := serve(t, Config{Service: &fake{}, Handover: func(_ context.Context, pid int) (Handover, error) {
			asked.Store(int64(pid))
			return Handover{Service: "web", Names: []string{}}, nil
		}}, func(s *Server) {
			s.gate.peerPidfd = noPeerPidfd
			s.gate.ticks = func() uint64 { return c.accepted }
		})
		h, err := NewClient(path).Handover(t.Context())
		if c.refusal != "" {
			if err == nil || !strings.Contains(err.Error(), c.refusal) || asked.Load() != 0 {
				t.Errorf("process %d was asked for, the error is %v", asked.Load(), err)
			}
			continue
		}
		if err != nil || h.Service != "web" || asked.Load() != int64(os.Getpid()) {
			t.Errorf("process %d was asked for, got %+v, %v", asked.Load(), h, err)
		}
	}
}

// Whoever has ended while its unit was looked up gets nothing: what was looked up
// may be another's.
func TestAHandoverToOneWhoEndsMeanwhile(t *testing.T) {
	pid, end := sleeper(t)
	giving := make(chan []*os.File, 1)
	_, path := serve(t, Config{Service: &fake{}, Handover: func(context.Context, int) (Handover, error) {
		end()
		h := Handover{Service: "web", Names: []string{"http"}}
		var ends []*os.File
		h.FDs, ends = pipes(t, 1)
		giving <- ends
		return h, nil
	}}, func(s *Server) {
		s.gate.peerPidfd = func(int) (int, error) { return unix.PidfdOpen(pid, 0) }
	})
	if _, err := NewClient(path).Handover(t.Context()); err == nil || !strings.Contains(err.Error(), "the process that asked has ended") {
		t.Errorf("the error is %v", err)
	}
	if _, err := (<-giving)[0].WriteString("x"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("what it was to get is still open: %v", err)
	}
}

func TestPidfdOfAProcessOfItsTime(t *testing.T) {
	before := bootTicks()
	pid, end := sleeper(t)
	began, err := startTime(pid)
	if now := bootTicks(); err != nil || began < before || began > now {
		t.Fatalf("it began between %d and %d, at %d: %v", before, now, began, err)
	}
	if fd, err := pidfdSince(pid, began-1); err == nil {
		unix.Close(fd)
		t.Error("one that began later is taken for the one that connected")
	}
	fd, err := pidfdSince(pid, began)
	if err != nil {
		t.Fatal(err)
	}
	p := peer{pid: pid, pidfd: fd}
	defer p.close()
	if !p.lives() {
		t.Error("it seems to have ended")
	}
	end()
	if p.lives() {
		t.Error("it seems to live")
	}
	if fd, err := pidfdSince(pid, bootTicks()); err == nil {
		unix.Close(fd)
		t.Error("what has ended is taken for the one that connected")
	}
}
