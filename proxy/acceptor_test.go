package proxy

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// acceptorVar makes this binary play a generation: it accepts from descriptor 3
// what it is told to, on its standard input.
const acceptorVar = "PROXY_TEST_ACCEPTOR"

// playAcceptor takes commands, a line each, and answers each with its number of
// connections and, after fork, a worker's process id:
//
//	accept N   take N more
//	close N    close the N oldest
//	shut       end the sending half of the newest
//	serve N    accept all that come from now on, and answer each with N
//	fork       give all of them to a worker, and keep none
func playAcceptor() {
	var conns []int
	worker := 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, arg, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(arg)
		switch word {
		case "accept":
			for range n {
				fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
				if err != nil {
					fmt.Println("error", err)
					return
				}
				conns = append(conns, fd)
			}
		case "close":
			for _, fd := range conns[:n] {
				unix.Close(fd)
			}
			conns = conns[n:]
		case "serve":
			go serveAll(n)
		case "shut":
			_ = unix.Shutdown(conns[len(conns)-1], unix.SHUT_WR)
		case "fork":
			files := []uintptr{0, 1, 2}
			for _, fd := range conns {
				files = append(files, uintptr(fd))
			}
			pid, err := syscall.ForkExec("/bin/cat", []string{"cat"}, &syscall.ProcAttr{Files: files})
			if err != nil {
				fmt.Println("error", err)
				return
			}
			for _, fd := range conns {
				unix.Close(fd)
			}
			conns, worker = nil, pid
		}
		fmt.Println(len(conns), worker)
	}
}

// serveAll ends with the process.
func serveAll(n int) {
	for {
		fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			return
		}
		go answerOne(fd, n)
	}
}

// answerOne reads a byte and answers with another. It ends with its client.
func answerOne(fd, n int) {
	defer unix.Close(fd)
	var b [1]byte
	if got, err := unix.Read(fd, b[:]); got == 1 && err == nil {
		_, _ = unix.Write(fd, []byte{byte(n)})
	}
}

// acceptor is such a process.
type acceptor struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Reader
	worker  int
	over    bool
}

func startAcceptor(t testing.TB, fd int) *acceptor {
	t.Helper()
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(own), "member")
	defer file.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), acceptorVar+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
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
	a := &acceptor{t: t, cmd: cmd, in: in, answers: bufio.NewReader(out)}
	t.Cleanup(a.kill)
	return a
}

// do gives a command and waits until it is done.
func (a *acceptor) do(command string, n int) {
	a.t.Helper()
	fmt.Fprintln(a.in, command, n)
	var conns int
	if _, err := fmt.Fscanln(a.answers, &conns, &a.worker); err != nil {
		a.t.Fatalf("%s: %v", command, err)
	}
}

func (a *acceptor) kill() {
	if a.over {
		return
	}
	a.over = true
	a.in.Close()
	if a.worker != 0 {
		_ = syscall.Kill(a.worker, syscall.SIGKILL)
	}
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}
