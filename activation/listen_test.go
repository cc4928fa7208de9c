package activation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// opened closes a listener at the end of the test.
func opened(t *testing.T, l Listener, err error) Listener {
	t.Helper()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// accepts says whether a connection to address reaches l.
func accepts(t *testing.T, l Listener, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	must(t, err)
	defer c.Close()
	must(t, unix.SetNonblock(l.FD, false))
	fd, _, err := unix.Accept(l.FD)
	must(t, err)
	unix.Close(fd)
}

func flagsOf(t *testing.T, fd int) (nonblock, cloexec bool) {
	t.Helper()
	status, err1 := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	flags, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	must(t, err1, err2)
	return status&unix.O_NONBLOCK != 0, flags&unix.FD_CLOEXEC != 0
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", ":0", "0.0.0.0:0", "unix:" + path} {
		t.Run(address, func(t *testing.T) {
			l, err := Listen("http", address)
			opened(t, l, err)
			if nonblock, cloexec := flagsOf(t, l.FD); !nonblock || !cloexec || l.Name != "http" || l.Source != "proxyd" {
				t.Fatalf("%+v: O_NONBLOCK %v, FD_CLOEXEC %v", l, nonblock, cloexec)
			}
			must(t, checkListening(l.FD))
			tcp, ok := l.Addr.(*net.TCPAddr)
			if !ok {
				accepts(t, l, "unix", path)
				return
			}
			port := strings.TrimPrefix(tcp.String()[strings.LastIndex(tcp.String(), ":"):], ":")
			if tcp.Port == 0 {
				t.Fatalf("the address is %s", tcp)
			}
			if reuse, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_REUSEADDR); reuse != 1 || err != nil {
				t.Fatalf("SO_REUSEADDR is %d, %v", reuse, err)
			}
			if ip4 := tcp.IP.To4() != nil; ip4 || tcp.IP.IsUnspecified() {
				accepts(t, l, "tcp4", "127.0.0.1:"+port)
			}
			if tcp.IP.To4() == nil {
				accepts(t, l, "tcp6", "[::1]:"+port)
			}
		})
	}
}

// Clients wait in the queue while nothing accepts; many of them.
func TestListenQueuesManyClients(t *testing.T) {
	l, err := Listen("http", "unix:"+filepath.Join(t.TempDir(), "s"))
	opened(t, l, err)
	most := 1000
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	must(t, err)
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		most = min(most, n)
	}
	for i := range most {
		c, err := net.Dial("unix", l.Addr.String())
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		defer c.Close()
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	live, err := Listen("http", "127.0.0.1:0")
	opened(t, live, err)
	for _, c := range []struct {
		name, address string
		want          error
		text          string
	}{
		{"a/b", ":0", ErrName, `bad name "a/b"`},
		{"http", "80", ErrAddress, "parse address"},
		{"http", "unix:/" + strings.Repeat("x", 107), ErrTooLong, "108 bytes"},
		{"http", live.Addr.String(), ErrInUse, "listen on " + live.Addr.String() + ": "},
		{"http", "192.0.2.1:0", unix.EADDRNOTAVAIL, "listen on 192.0.2.1:0: bind: "},
		{"http", "[fe80::1%nosuch]:0", ErrAddress, `zone "nosuch"`},
		{"http", "unix:" + dir + "/none/s", os.ErrNotExist, "bind: "},
	} {
		l, err := Listen(c.name, c.address)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Listen(%q, %q) = %+v, %v, want %v", c.name, c.address, l, err, c.want)
		}
	}
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := Listen("http", "unix:"+path)
	must(t, err, unix.Close(dead.FD)) // its file stays, as after kill -9

	live, err := Listen("http", "unix:"+path)
	must(t, err)
	accepts(t, live, "unix", path)
	if _, err := Listen("http", "unix:"+path); !errors.Is(err, ErrInUse) {
		t.Fatalf("over a live socket: %v", err)
	}
	accepts(t, live, "unix", path) // still there

	must(t, live.Close())
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestListenLeavesALiveSocketWithAFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	f := rawSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, unix.Bind(int(f.Fd()), &unix.SockaddrUnix{Name: path}), unix.Listen(int(f.Fd()), 0))
	c, err := net.Dial("unix", path)
	must(t, err)
	defer c.Close()
	if _, err := Listen("http", "unix:"+path); !errors.Is(err, ErrInUse) {
		t.Fatalf("over a socket whose queue is full: %v", err)
	}
}

func TestListenLeavesWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	plain, link, datagram := filepath.Join(dir, "plain"), filepath.Join(dir, "link"), filepath.Join(dir, "datagram")
	must(t, os.WriteFile(plain, []byte("x"), 0o600), os.Symlink(plain, link))
	f := rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	must(t, unix.Bind(int(f.Fd()), &unix.SockaddrUnix{Name: datagram}))
	for path, want := range map[string]error{plain: ErrNoSocket, link: ErrNoSocket, dir: ErrNoSocket, datagram: ErrInUse} {
		if _, err := Listen("http", "unix:"+path); !errors.Is(err, want) {
			t.Errorf("over %s: %v, want %v", path, err, want)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseLeavesASuccessorsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := Listen("http", "unix:"+path)
	must(t, err, os.Rename(path, path+".old"))
	successor, err := Listen("http", "unix:"+path)
	opened(t, successor, err)
	must(t, old.Close())
	accepts(t, successor, "unix", path)
}

func TestPrivateUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Private("http", &net.UnixAddr{Net: "unix", Name: path})
	opened(t, l, err)
	if nonblock, cloexec := flagsOf(t, l.FD); nonblock || !cloexec {
		t.Fatalf("O_NONBLOCK %v, FD_CLOEXEC %v", nonblock, cloexec)
	}
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("its mode is %v", info.Mode())
	}
	accepts(t, l, "unix", path)
	if _, err := Private("http", l.Addr); !errors.Is(err, ErrInUse) {
		t.Fatalf("twice: %v", err)
	}
}

func TestPrivateTCP(t *testing.T) {
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} {
		l, err := Private("http", &net.TCPAddr{IP: ip})
		opened(t, l, err)
		if nonblock, cloexec := flagsOf(t, l.FD); nonblock || !cloexec {
			t.Fatalf("O_NONBLOCK %v, FD_CLOEXEC %v", nonblock, cloexec)
		}
		ephemeral, _ := readPortRanges()
		if port := l.Addr.(*net.TCPAddr).Port; ephemeral.holds(port) {
			t.Fatalf("port %d is one that a client may be given (%v)", port, ephemeral)
		}
		accepts(t, l, "tcp", l.Addr.String())
		if _, err := Private("http", l.Addr); !errors.Is(err, ErrInUse) {
			t.Fatalf("twice: %v", err)
		}
	}
}

func TestPrivateRefuses(t *testing.T) {
	for _, addr := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4zero}, &net.TCPAddr{}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.UDPAddr{},
		&net.UnixAddr{Name: "@abstract"}, &net.UnixAddr{}, nil,
	} {
		if l, err := Private("http", addr); !errors.Is(err, ErrAddress) {
			t.Errorf("Private at %v = %+v, %v", addr, l, err)
		}
	}
	if _, err := Private("", &net.TCPAddr{IP: net.IPv6loopback}); !errors.Is(err, ErrName) {
		t.Errorf("without a name: %v", err)
	}
	if _, err := Private("http", &net.UnixAddr{Name: "/" + strings.Repeat("x", 107)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("a path too long: %v", err)
	}
}
