package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runTestBackend is the service behind proxyd in these tests. Its first argument
// says how it behaves:
//
//	serve       an HTTP server on the socket it was handed, which ends at TERM
//	bind        the same on an address of its own, the next argument
//	never       starts, writes a line, and never accepts
//	die         writes a line and exits with 3
//	dieready    sends READY=1, serves, and exits when the file of the next
//	            argument exists
//	flip        says whether its socket has O_NONBLOCK, changes that, and exits
//	stubborn    serves, and ignores TERM
//	closes      serves, and has closed every descriptor that it was not told of
//	hidden      serves, and lets nobody but root trace it
//	rooted      serves, and leaves a process that becomes root's by the program of the
//	            next argument, serves as well, and writes its number to the file of
//	            the one after
//	lean        answers each connection's first bytes with its generation, and
//	            closes; see serveLean
//	slow        answers one client after the other, once the file of the next
//	            argument exists
//	defer       serves whoever has sent something (TCP_DEFER_ACCEPT, tcp(7))
//	joins       serves, and has a socket of its own at the address that it was
//	            handed one of
//	shuts       serves, and at TERM shuts its socket down, rather than closing it
//	inturn      answers one client after the other, with how many came before
//	escape      serves, and leaves a grandchild in a session of its own, whose
//	            number it writes to the file of the next argument
func runTestBackend(mode string, args []string) {
	release := os.Getenv("PROXYD_RELEASE")
	switch mode {
	case "never":
		fmt.Println("loading the model, this takes for ever")
		waitForTerm()
		return
	case "die":
		fmt.Println("fatal: no such table: users")
		os.Exit(3)
	case "orphan": // the grandchild of escape
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		_, _ = io.Copy(io.Discard, os.NewFile(3, "never written to")) // ends with the test
		select {}
	case "flip":
		flags, _ := unix.FcntlInt(3, unix.F_GETFL, 0)
		_, _ = unix.FcntlInt(3, unix.F_SETFL, flags^unix.O_NONBLOCK)
		fmt.Println("non-blocking:", flags&unix.O_NONBLOCK != 0)
		os.Exit(3)
	case "lean":
		serveLean()
	case "closes":
		_ = unix.CloseRange(4, math.MaxUint32, 0)
	case "defer":
		_ = unix.SetsockoptInt(3, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60)
	case "hidden":
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "rooted":
		if err := leaveRooted(args[0], args[1]); err != nil {
			fmt.Println("cannot leave a process:", err)
			os.Exit(1)
		}
	case "root": // what rooted leaves
		signal.Ignore(syscall.SIGTERM)
		if err := unix.Setresuid(0, 0, 0); err != nil {
			os.Exit(1)
		}
		_ = os.WriteFile(args[0]+".new", []byte(strconv.Itoa(os.Getpid())), 0o644)
		_ = os.Rename(args[0]+".new", args[0])
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "joins":
		if err := joinGroup(3); err != nil {
			fmt.Println("cannot join:", err)
			os.Exit(1)
		}
	case "escape":
		leaveGrandchild(args[0])
	case "dieready":
		notify("READY=1\nSTATUS=serving for now")
		go dieWhen(args[0])
	}
	shut, _ := unix.FcntlInt(3, unix.F_DUPFD_CLOEXEC, 0)
	l, err := backendListener(mode, args)
	if err != nil {
		fmt.Println("cannot listen:", err)
		os.Exit(1)
	}
	switch mode {
	case "slow":
		l = &waitingListener{l, args[0]}
	case "inturn":
		fmt.Println("cannot serve:", serveInTurn(l, release))
		os.Exit(1)
	}
	server := &http.Server{Handler: testHandler(release)}
	if mode != "stubborn" && mode != "root" {
		go func() {
			waitForTerm()
			if mode == "shuts" {
				_ = unix.Shutdown(shut, unix.SHUT_RD)
			}
			server.Close()
		}()
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		fmt.Println("cannot serve:", err)
		os.Exit(1)
	}
}

// joinGroup listens where another socket does, until the program ends.
func joinGroup(other int) error {
	addr, err := unix.Getsockname(other)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, addr), unix.Listen(fd, 16))
}

func backendListener(mode string, args []string) (net.Listener, error) {
	if mode == "bind" {
		if path, ok := strings.CutPrefix(args[0], "unix:"); ok {
			return net.Listen("unix", path)
		}
		return net.Listen("tcp", args[0])
	}
	if mode != "root" && os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("LISTEN_PID is %q, not %d", os.Getenv("LISTEN_PID"), os.Getpid())
	}
	f := os.NewFile(3, "handed")
	defer f.Close()
	return net.FileListener(f)
}

// testHandler answers with the release and the generation. /drip?n=N gives N
// lines, one every 50 ms; /echo turns the connection into an echo of lines, as
// a WebSocket would be.
func testHandler(release string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s", release, os.Getenv("PROXYD_GENERATION"))
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := range n {
			fmt.Fprintf(w, "%s %d\n", release, i)
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n")
		lines := bufio.NewReader(rw)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s %s", release, line)
		}
	})
	return mux
}

func waitForTerm() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
}

// dieWhen exits once path exists.
func dieWhen(path string) {
	for range time.Tick(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			fmt.Println("fatal: out of cheese")
			os.Exit(9)
		}
	}
}

func notify(state string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println("cannot notify:", err)
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

// leaveGrandchild starts a process that is in no group, session or family of
// this one: its parent, a shell, ends at once.
func leaveGrandchild(pidFile string) {
	self, _ := os.Executable()
	cmd := exec.Command("/bin/sh", "-c", `setsid "$0" backend orphan 3<&0 >/dev/null 2>&1 & echo $! > "$1.new"; mv "$1.new" "$1"`, self, pidFile)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Println("cannot leave a grandchild:", err, string(out))
	}
}

// leaveRooted starts a process that serves on the same socket, and waits until that
// is root's.
func leaveRooted(program, pidFile string) error {
	if _, err := os.Stat(pidFile); err == nil {
		return nil // one is enough
	}
	cmd := exec.Command(program, "backend", "root", pidFile)
	fd, err := unix.FcntlInt(3, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "handed")
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(pidFile); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waitingListener accepts nothing before a file exists.
type waitingListener struct {
	net.Listener
	path string
}

func (l *waitingListener) Accept() (net.Conn, error) {
	for {
		if _, err := os.Stat(l.path); err == nil {
			return l.Listener.Accept()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// serveInTurn takes one client after the other to its end. Who closes without a
// word, as a readiness check does, is none. It ends with an error of Accept.
func serveInTurn(l net.Listener, release string) error {
	for n := 0; ; {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			body := fmt.Sprintf("%s %d", release, n)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			n++
		}
		c.Close()
	}
}
