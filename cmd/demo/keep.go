package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long proxyd gets at each step of its end.
const (
	endSoon = 3 * time.Second // from the stop signal to the second one, which hurries it
	endNow  = 5 * time.Second // then to KILL
)

// keep is the keeper: it runs proxyd for the demo and tidies up after both,
// however they end. It is a process and a group of its own, which neither ^C nor
// a kill -9 of the demo reaches, and hangs on a pipe from the demo, its standard
// input: the first byte says that proxyd is built and is to be run, the end of
// the pipe that the demo is over. Then proxyd and what it started are ended, and
// dir is removed.
func keep(dir string) (err error) {
	defer func() {
		if rmErr := os.RemoveAll(dir); err == nil {
			err = rmErr
		}
	}()
	// What outlives proxyd becomes the keeper's child, so that nothing gets away.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	demo := bufio.NewReader(os.Stdin)
	if _, err := demo.ReadByte(); err != nil {
		return nil // it was over before there was a proxyd
	}
	proxyd := exec.Command(filepath.Join(dir, "proxyd"), "--config", filepath.Join(dir, configName),
		"--runtime-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state"))
	proxyd.Stdout, proxyd.Stderr = os.Stdout, os.Stderr
	if err := proxyd.Start(); err != nil {
		return err
	}
	defer endChildren()
	ended := make(chan error, 1)
	go awaitProxyd(proxyd, ended)
	over := make(chan struct{})
	go awaitEnd(demo, over)
	select {
	case err := <-ended:
		return err
	case <-over:
	case <-asked:
	}
	for _, step := range []struct {
		signal syscall.Signal
		atMost time.Duration
	}{{syscall.SIGTERM, endSoon}, {syscall.SIGTERM, endNow}, {syscall.SIGKILL, endNow}} {
		_ = proxyd.Process.Signal(step.signal)
		select {
		case err := <-ended:
			return err
		case <-time.After(step.atMost):
		}
	}
	return fmt.Errorf("proxyd did not end by KILL")
}

// awaitProxyd ends with proxyd; keep waits for it.
func awaitProxyd(proxyd *exec.Cmd, ended chan<- error) { ended <- proxyd.Wait() }

// awaitEnd ends with the demo, or with the keeper.
func awaitEnd(demo io.Reader, over chan<- struct{}) {
	_, _ = io.Copy(io.Discard, demo)
	close(over)
}

// endChildren kills what proxyd left behind, which is nothing where it ended as
// asked.
func endChildren() {
	for {
		children := 0
		lists, _ := filepath.Glob("/proc/self/task/*/children") // proc(5)
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil {
					children++
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		if children == 0 {
			return
		}
		_, _ = unix.Wait4(-1, nil, 0, nil) // theirs come to us in the next round
	}
}
