package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// heldReport is what a proxy in another process says of itself.
type heldReport struct {
	Connections, Blocked int
	Bytes, Pipes         int // lent
	PipeBytes            int // of all its pipes
	UID                  int
}

// TestUnprivilegedUser runs the proxy as a user with the default quota of pipe
// buffers (64 MiB in all, pipe(7)) and holds 5,000 connections on it, some of
// them large streams, each with a client that does not read. What they cost is bounded; when they read, every
// byte is there.
func TestUnprivilegedUser(t *testing.T) {
	needRoot(t)
	const clients, streams, size, streamSize = 5000, 50, 100_000, 16 << 20
	front, back := listenPlain(t), listenOn(t, "unix")
	// The streams come from a TCP backend: only these go through pipes.
	streamFront, streamBack := listenPlain(t), listenPlain(t)
	dir := filepath.Dir(back.Addr().String())
	for path, mode := range map[string]os.FileMode{dir: 0o711, back.Addr().String(): 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	fd := descriptorOf(t, front)
	needDescriptors(t, 2*clients+1000)
	cmd := child("unprivileged", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, "BACKEND="+back.Addr().String(), "STREAMS="+streamBack.Addr().String())
	cmd.Args[0], cmd.Path = os.Args[0], forEverybody(t)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, fd)), "front"), os.NewFile(uintptr(dup(t, descriptorOf(t, streamFront))), "streams")}
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
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	defer func() {
		in.Close() // which ends it
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	answers := bufio.NewScanner(out)
	ask := func() (r heldReport) {
		t.Helper()
		io.WriteString(in, "\n")
		if !answers.Scan() {
			t.Fatal("the proxy has ended: ", answers.Err())
		}
		if err := json.Unmarshal(answers.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", answers.Bytes(), err)
		}
		return r
	}

	all := pattern(1, streamSize)
	message := func(i int) []byte {
		if i < streams {
			return all
		}
		return all[:size]
	}
	var writers sync.WaitGroup
	conns := make([]duplex, clients)
	var dialer net.Dialer
	for i := range conns {
		front, back := front, back
		if i < streams {
			front, back = streamFront, streamBack
		}
		if i == streams {
			// From here on with small socket buffers, so that bytes are stuck in
			// the proxy and not in the kernel.
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10); err != nil {
				t.Fatal(err)
			}
			dialer.Control = func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
			}
		}
		c, err := dialer.Dial("tcp", front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = ready(t, c)
		b := take(t, back)
		writers.Go(func() { // ends when its client has read all
			if got := feed(b, message(i)); got != "written" {
				t.Error(got)
			}
			b.Close()
		})
	}
	var r heldReport
	eventually(t, "every client is waited for", func() bool { r = ask(); return r.Blocked == clients })
	t.Logf("%+v", r)
	if r.UID != 65534 {
		t.Errorf("it runs as user %d", r.UID)
	}
	// 32 MiB a loop before it holds less, then 4 KiB for each, and the reads
	// that were under way.
	if most := 2*muchHeld + clients*smallBuffer + 2*clients/10*bufferSize; r.Bytes > most {
		t.Errorf("%d bytes are held in buffers, want %d at most", r.Bytes, most)
	}
	if r.Pipes == 0 || r.Pipes > 32 || r.PipeBytes > 64<<20 {
		t.Errorf("%d pipes are lent, all have %d bytes: more than a user has", r.Pipes, r.PipeBytes)
	}
	for i, c := range conns {
		if got := want(c, message(i)); got != fmt.Sprintf("%d bytes", len(message(i))) {
			t.Fatal(got)
		}
		if got := drain(c); got != "0 bytes 00000000, end" {
			t.Fatal(got)
		}
		c.Close()
	}
	writers.Wait()
	eventually(t, "nothing is held", func() bool { r = ask(); return r.Connections == 0 && r.Bytes == 0 && r.Pipes == 0 })
}

// unprivileged serves the socket that it inherited until its input ends, and
// answers each line with what it holds.
func unprivileged() error {
	streams, err := net.ResolveTCPAddr("tcp", os.Getenv("STREAMS"))
	if err != nil {
		return err
	}
	p, err := New(Config{Listeners: []Listener{{Name: "web", FD: 3}, {Name: "streams", FD: 4}}, Loops: 2})
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := p.NewRoute(1, map[string]net.Addr{
		"web": &net.UnixAddr{Net: "unix", Name: os.Getenv("BACKEND")}, "streams": streams,
	})
	if err != nil {
		return err
	}
	p.Switch(r)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		h := heldReport{UID: os.Getuid()}
		for _, l := range p.loops {
			p.inLoop(l, func() {
				h.Connections += l.slab.live
				h.Bytes += l.held
				h.Pipes += l.lentPipe
				l.slab.all(func(c *conn) {
					if c.side[client].is(blocked) {
						h.Blocked++
					}
				})
				all := append([]pipe{l.pipe}, l.pipes...)
				for _, x := range l.lends {
					if x.buf == nil && x.n > 0 {
						all = append(all, x.pipe)
					}
				}
				for _, x := range all {
					if n, err := unix.FcntlInt(uintptr(x.r), unix.F_GETPIPE_SZ, 0); err == nil {
						h.PipeBytes += n
					}
				}
			})
		}
		b, err := json.Marshal(h)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
	return nil
}

// forEverybody gives a copy of this binary that everybody may run.
func forEverybody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	path := filepath.Join(dir, "proxy.test")
	if err := errors.Join(err, os.WriteFile(path, b, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur < n {
		t.Fatalf("limit of %d descriptors, %d are needed: %v", l.Cur, n, err)
	}
}
