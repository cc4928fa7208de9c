package trial

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// runBackend is a Go server as people write them for systemd: it takes its
// sockets from LISTEN_FDS, or binds $ADDRESS, and says READY=1. What it does
// beside that is said by its arguments.
func runBackend() {
	mode := ""
	if len(os.Args) > 2 {
		mode = os.Args[2]
	}
	switch mode {
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot read its own config")
		os.Exit(1)
	case "hang":
		fmt.Println("waiting for a database")
		select {}
	case "kill":
		fmt.Println("growing")
		killMyself()
	case "oom":
		fmt.Println("growing")
		if err := markOutOfMemory(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		killMyself()
	}
	listeners, err := activation.Listeners()
	if err == nil && len(listeners) == 0 {
		var l net.Listener
		l, err = net.Listen("tcp", os.Getenv("ADDRESS"))
		listeners = []net.Listener{l}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answer := os.Getenv("PROXYD_RELEASE") + " " + os.Getenv("PROXYD_GENERATION")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, answer) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"), "\npid", os.Getpid())
	})
	mux.HandleFunc("/drip", drip)
	if os.Getenv("NOTIFY_SOCKET") != "" && mode != "silent" {
		if _, err := daemon.SdNotify(false, "STATUS=serves "+answer+"\nREADY=1"); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	ended := make(chan error)
	for _, l := range listeners {
		go func() { ended <- http.Serve(l, mux) }() // ends with the process
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// drip answers with n lines, one every 20 ms.
func drip(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	for i := range n {
		fmt.Fprintln(w, i)
		w.(http.Flusher).Flush()
		time.Sleep(20 * time.Millisecond)
	}
}

func killMyself() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// markOutOfMemory does to its own control group what systemd-oomd does before it
// kills what is in one: with the mark, systemd takes the end for one for want of
// memory (oom-kill), as with the kernel's own count (memory.events), which is not
// there where the machine's controllers are of version 1 (see package booted).
func markOutOfMemory() error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	_, group, _ := strings.Cut(strings.TrimSpace(string(text)), "0::")
	for _, name := range []string{"user.oomd_ooms", "user.oomd_kill"} {
		if err := syscall.Setxattr("/sys/fs/cgroup"+group, name, []byte("1"), 0); err != nil {
			return fmt.Errorf("mark %s: %w", group, err)
		}
	}
	return nil
}
