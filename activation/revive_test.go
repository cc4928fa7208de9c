package activation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket that a program has shut down is of use again for its next run, at the same
// address; one that was not is left alone.
func TestRevive(t *testing.T) {
	dir := t.TempDir()
	for name, addr := range map[string]net.Addr{
		"unix": &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "http.sock")},
		"tcp":  &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
	} {
		for how, what := range map[string]int{"for reading": unix.SHUT_RD, "altogether": unix.SHUT_RDWR} {
			t.Run(name+" "+how, func(t *testing.T) {
				l, err := Private("http", addr)
				must(t, err)
				defer func() { must(t, l.Close()) }()
				at := l.Addr.String()
				connect := func(want bool) {
					t.Helper()
					c, err := net.Dial(l.Addr.Network(), at)
					if (err == nil) != want {
						t.Fatalf("a connect: %v", err)
					}
					if err == nil {
						c.Close()
					}
				}
				if same, changed, err := Revive(l); err != nil || changed || same.FD != l.FD {
					t.Fatalf("one that listens: %v, %v", changed, err)
				}
				connect(true)
				must(t, unix.Shutdown(l.FD, what))
				connect(false)
				revived, changed, err := Revive(l)
				must(t, err)
				l = revived
				if !changed || l.Name != "http" || l.Addr.String() != at {
					t.Fatalf("got %+v, changed %v", l, changed)
				}
				connect(true)
			})
		}
	}
}

// A member that was shut down is no reason not to start: it listens again.
func TestInheritedListensAgain(t *testing.T) {
	members, err := ListenGroup("http", "127.0.0.1:0", 3)
	must(t, err)
	defer closeAll(t, members)
	var files []*os.File
	for _, l := range members {
		fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 3)
		must(t, err)
		files = append(files, asFile(t, fd))
	}
	must(t, unix.Shutdown(members[1].FD, unix.SHUT_RDWR))
	got := inheritIn(t, files, "LISTEN_FDS=3", "LISTEN_FDNAMES=http:http:http")
	if got.Error != "" || len(got.Listeners) != 3 {
		t.Fatalf("got %+v", got)
	}
	must(t, checkListening(members[1].FD))
}

// Nor is one missing that only generations held, and shut down.
func TestRecoverGroupTakesWhatWasShutDown(t *testing.T) {
	members, err := ListenGroup("http", "127.0.0.1:0", 3)
	must(t, err)
	var cookies []uint64
	for _, l := range members {
		c, err := l.Cookie()
		must(t, err)
		cookies = append(cookies, c)
	}
	held := holdElsewhere(t, members)
	defer held.end()
	must(t, unix.Shutdown(members[2].FD, unix.SHUT_RDWR))
	closeAll(t, members)
	recovered, err := RecoverGroup("http", cookies)
	must(t, err)
	defer closeAll(t, recovered)
	c, err := recovered[2].Cookie()
	if err != nil || c != cookies[2] {
		t.Fatalf("cookie %d, not %d, %v", c, cookies[2], err)
	}
	if !errors.Is(checkListening(recovered[2].FD), errDoesNotListen) {
		t.Fatal("it was changed, which is not for a mere look")
	}
}
