package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What needs a process of its own: this binary again, told by a variable what
// to be.
const childVariable = "PROXY_TEST_CHILD"

var children = map[string]func() error{
	"few descriptors": fewDescriptors,
	"self-connect":    selfConnect,
	"unprivileged":    unprivileged,
}

func child(what string, attr *syscall.SysProcAttr, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childVariable+"="+what), env...)
	cmd.SysProcAttr = attr
	return cmd
}

// needRoot skips where the test cannot be made, unless everything is required.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

// TestFewDescriptors runs this binary again with a low limit that is used up
// behind the proxy's back.
func TestFewDescriptors(t *testing.T) {
	out, err := child("few descriptors", nil).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "served after EMFILE") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func fewDescriptors() error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: 256}); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	back, err := net.Listen("unix", dir+"/s")
	if err != nil {
		return err
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	if _, err := New(Config{Listeners: []Listener{{Name: "web", FD: int(file.Fd())}}, Reserve: 1000}); !errors.Is(err, ErrLimits) {
		return fmt.Errorf("a reserve beyond the limit: %v", err)
	}
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: int(file.Fd())}}, Loops: 1})
	if err != nil {
		return err
	}
	defer p.Close()
	if p.limit < 50 || p.limit > (256-64)/2 {
		return fmt.Errorf("%d connections at 256 descriptors with 64 in reserve", p.limit)
	}
	r, err := p.NewRoute(1, map[string]net.Addr{"web": back.Addr()})
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return err
	}
	var taken []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	p.Switch(r)
	for p.emfile.Load() < 2 { // it tried, failed, rested and tried again
		time.Sleep(time.Millisecond)
	}
	rested := false
	for !rested { // it does not spin meanwhile
		p.inLoop(p.loops[0], func() { rested = p.loops[0].resting && p.loops[0].listening == 0 })
		if p.emfile.Load() > 1000 {
			return errors.New("accepting goes on without a rest")
		}
	}
	for _, fd := range taken {
		unix.Close(fd)
	}
	b, err := back.Accept()
	if err != nil {
		return err
	}
	b.Write([]byte("late"))
	if got := want(c, []byte("late")); got != "4 bytes" {
		return errors.New(got)
	}
	fmt.Println("served after EMFILE")
	return nil
}

// TestSelfConnect: in a network namespace whose only free port is the one that
// nobody listens on, every connect to it is given that very port as its own.
func TestSelfConnect(t *testing.T) {
	needRoot(t)
	out, err := child("self-connect", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "served after it") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func selfConnect() error {
	const port = 40000
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", port, port), 0o644); err != nil {
		return err
	}
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	// So it is without care: this dial meets itself. (Go's own net package
	// tries again where that happens.)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("a connect that should meet itself: %w", err)
	}
	reset := unix.Linger{Onoff: 1}
	if err := errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &reset), unix.Close(fd)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	front, err := net.Listen("unix", dir+"/s")
	if err != nil {
		return err
	}
	file, err := front.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: int(file.Fd())}}, Loops: 1, ConnectTimeout: 200 * time.Millisecond})
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := p.NewRoute(1, map[string]net.Addr{"web": to})
	if err != nil {
		return err
	}
	p.Switch(r)
	c, err := net.Dial("unix", dir+"/s")
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("echo?"))
	if got := drain(c); got != "0 bytes 00000000, end" && got != "0 bytes 00000000, reset" {
		return fmt.Errorf("a client of nobody was told: %s", got)
	}
	c.Close()
	if n := r.Counts(); n.ConnectFailures != 1 {
		return fmt.Errorf("not counted as a failure: %+v", n)
	}
	// Its own port is taken from the range again: free it for the listener, and
	// another for the connect.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", port, port+1), 0o644); err != nil {
		return err
	}
	back, err := net.ListenTCP("tcp", to)
	if err != nil {
		return err
	}
	c, err = net.Dial("unix", dir+"/s")
	if err != nil {
		return err
	}
	b, err := back.Accept()
	if err != nil {
		return err
	}
	b.Write([]byte("real"))
	if got := want(c, []byte("real")); got != "4 bytes" {
		return errors.New(got)
	}
	fmt.Println("served after it")
	return nil
}
