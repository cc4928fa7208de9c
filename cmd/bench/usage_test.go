package main

import (
	"golang.org/x/sys/unix"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestParseIdle(t *testing.T) {
	got, err := parseIdle([]byte("cpu  11671 1 5321 600 40 0 74 2 0 0\ncpu0 1 2 3 4 5 6 7 8\n"))
	if want := 6420 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3", "cpu 1 2 3 x 5 6 7 8 9"} {
		if _, err := parseIdle([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseRss(t *testing.T) {
	got, err := parseRss([]byte("5600-7ffe ---p 00000000 00:00 0 [rollup]\nRss:                1044 kB\nPss:                 100 kB\n"))
	if err != nil || got != 1044<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "Pss: 1 kB\n", "Rss: many kB\n"} {
		if _, err := parseRss([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// The clock of another process counts threads that have ended, and is finer than
// a tick.
func TestProcessCPUSeesEndedThreads(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go burnAndEndThread(done)
	<-done
	after, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("%v before, %v after some work", before, after)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A process is charged when it is taken off a processor: it has answered and
	// waits again once the second answer is there.
	for range 2 {
		if _, err := in.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := processCPU(cmd.Process.Pid); err != nil || d <= 0 {
		t.Errorf("clock of a child: %v, %v", d, err)
	}
	if all := family(os.Getpid()); !slices.Contains(all, cmd.Process.Pid) {
		t.Errorf("child %d is not in %v", cmd.Process.Pid, all)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := processCPU(cmd.Process.Pid); err == nil {
		t.Error("a process that is gone has a clock")
	}
}

// burnAndEndThread works a little on a thread that ends with it.
func burnAndEndThread(done chan<- struct{}) {
	runtime.LockOSThread()
	defer close(done)
	var before, now syscall.Rusage
	for _ = syscall.Getrusage(unix.RUSAGE_THREAD, &before); now.Utime.Nano()+now.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano() < 5e6; {
		_ = syscall.Getrusage(unix.RUSAGE_THREAD, &now)
	}
}
