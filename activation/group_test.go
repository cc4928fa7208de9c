package activation

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func closeAll(t *testing.T, listeners []Listener) {
	t.Helper()
	for _, l := range listeners {
		must(t, l.Close())
	}
}

// All connections go to the first member of a new group, whatever the others.
func TestListenGroup(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			members, err := ListenGroup("http", address, 4)
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(t, members)
			port := members[0].Addr.(*net.TCPAddr).Port
			for _, l := range members {
				if l.Name != "http" || l.Source != SourceProxyd || l.Addr.String() != members[0].Addr.String() {
					t.Fatalf("a member is %+v, the first %+v", l, members[0])
				}
			}
			host := members[0].Addr.(*net.TCPAddr).IP
			if host.IsUnspecified() {
				host = net.IPv6loopback
			}
			for range 16 {
				c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: host, Port: port})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			for i, l := range members {
				if n, err := QueueLength(l.FD); err != nil || n != map[bool]int{true: 16}[i == 0] {
					t.Fatalf("member %d has %d in its queue, %v", i, n, err)
				}
			}
			// Neither a second group nor a single socket may join unnoticed.
			if more, err := ListenGroup("http", members[0].Addr.String(), 2); !errors.Is(err, ErrInUse) {
				t.Fatalf("a second group: %v, %v", more, err)
			}
			if l, err := Listen("http", members[0].Addr.String()); !errors.Is(err, ErrInUse) {
				t.Fatalf("a single socket: %v, %v", l, err)
			}
		})
	}
}

func TestListenGroupRefuses(t *testing.T) {
	single, err := Listen("http", "127.0.0.1:0")
	must(t, err)
	defer single.Close()
	for address, want := range map[string]error{
		single.Addr.String(): ErrInUse, "unix:/tmp/s": ErrAddress, "nonsense": ErrAddress,
	} {
		if l, err := ListenGroup("http", address, 3); !errors.Is(err, want) {
			t.Fatalf("%s: %v, %v, want %v", address, l, err, want)
		}
	}
}

// What another process holds comes back in its order; where one is missing
// nothing does.
func TestRecoverGroup(t *testing.T) {
	members, err := ListenGroup("http", "127.0.0.1:0", 3)
	must(t, err)
	var cookies []uint64
	var files []*holder
	for _, l := range members {
		c, err := l.Cookie()
		must(t, err)
		cookies = append(cookies, c)
	}
	files = append(files, holdElsewhere(t, members[1:]), holdElsewhere(t, members[:1]))
	closeAll(t, members)
	slices.Reverse(cookies)
	recovered, err := RecoverGroup("http", cookies)
	must(t, err)
	for i, l := range recovered {
		c, err := l.Cookie()
		must(t, err)
		if c != cookies[i] || l.Name != "http" || l.Addr.String() != members[0].Addr.String() {
			t.Fatalf("recovered %+v with cookie %d, want %d", l, c, cookies[i])
		}
		flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Fatalf("flags %x, %v", flags, err)
		}
	}
	closeAll(t, recovered)
	files[1].end()
	if l, err := RecoverGroup("http", cookies); !errors.Is(err, ErrHeldInPart) {
		t.Fatalf("with one gone: %v, %v", l, err)
	}
	// Beside those that are left one more can have all connections.
	address := members[0].Addr.String()
	if _, err := Listen("http", address); !errors.Is(err, ErrInUse) {
		t.Fatalf("a single socket beside: %v", err)
	}
	l, err := ListenBeside("http", address)
	must(t, err)
	for range 20 {
		c, err := net.Dial("tcp", address)
		must(t, err)
		defer c.Close()
	}
	if n, err := QueueLength(l.FD); err != nil || n != 20 {
		t.Fatalf("%d of 20 came to it, %v", n, err)
	}
	must(t, l.Close())
	files[0].end()
	if l, err := RecoverGroup("http", cookies); !errors.Is(err, ErrNotHeld) {
		t.Fatalf("with all gone: %v, %v", l, err)
	}
}

// A client that comes in before a try to find the index is kept: it was told by
// nobody that it would be closed.
func TestListenBesideKeepsItsClients(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		group, err := ListenGroup("http", address, 1)
		must(t, err)
		l := group[0]
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr.String())
		must(t, err)
		defer client.Close()
		if mine, err := l.arrives(0); !mine || err != nil || len(l.Clients) != 1 {
			t.Fatalf("%s: arrived: %v, %v, clients %v", address, mine, err, l.Clients)
		}
		defer unix.Close(l.Clients[0])
		_, err = unix.Write(l.Clients[0], []byte("x"))
		must(t, err)
		var b [1]byte
		if n, err := client.Read(b[:]); n != 1 || err != nil {
			t.Errorf("%s: the client read %d, %v", address, n, err)
		}
	}
}

// When others close theirs the kernel moves members; new connections come to the one
// beside them all the same.
func TestListenBesideOutlivesTheOthers(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		others, err := ListenGroup("http", address, 4)
		must(t, err)
		l, err := ListenBeside("http", others[0].Addr.String())
		must(t, err)
		want := 0
		for _, o := range others {
			must(t, o.Close())
			for range 20 {
				c, err := net.Dial("tcp", l.Addr.String())
				must(t, err)
				defer c.Close()
			}
			want += 20
			if n, err := QueueLength(l.FD); err != nil || n != want {
				t.Errorf("%s: %d of %d came to it, %v", address, n, want, err)
			}
		}
		must(t, l.Close())
	}
}

// Where somebody else listens without being of the group there is no place.
func TestListenBesideAStranger(t *testing.T) {
	single, err := Listen("http", "127.0.0.1:0")
	must(t, err)
	defer single.Close()
	for _, address := range []string{single.Addr.String(), "127.0.0.1:0", "unix:/tmp/s"} {
		if l, err := ListenBeside("http", address); err == nil {
			t.Fatalf("%s: %+v", address, l)
		}
	}
}

// holder is another process that has some sockets open.
type holder struct {
	cmd *exec.Cmd
	in  io.Closer
}

func holdElsewhere(t *testing.T, listeners []Listener) *holder {
	t.Helper()
	cmd := exec.Command("cat")
	for _, l := range listeners {
		fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 3)
		must(t, err)
		f := os.NewFile(uintptr(fd), "member")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	h := &holder{cmd, in}
	t.Cleanup(h.end)
	return h
}

func (h *holder) end() {
	_ = h.in.Close()
	_ = h.cmd.Wait()
}
