package activation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// What an earlier process stored comes back beside the listeners, with the flags
// that it has; what is no listening socket any more is passed over.
func TestInheritedTellsStoredSockets(t *testing.T) {
	given, addr := listening(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 0)
	path := filepath.Join(t.TempDir(), "s")
	kept, _ := listening(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: path}, 0)
	pipe, end, err := os.Pipe()
	must(t, err)
	defer pipe.Close()
	defer end.Close()
	got := inheritIn(t, []*os.File{given, pipe, kept}, "LISTEN_FDS=3", "LISTEN_FDNAMES=http:generation/1/http:generation/2/http")
	want := childAnswer{
		Listeners: []seen{{"http", "tcp", addr.String(), "systemd", 3, true, true}},
		Stored:    []seen{{"generation/2/http", "unix", path, "proxyd", 5, false, true}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer manager.Close()
	f, addr := listening(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 0)
	fd := int(f.Fd())

	t.Setenv("NOTIFY_SOCKET", "")
	must(t, Store("generation/1/http", fd)) // nobody asked to be told
	t.Setenv("NOTIFY_SOCKET", path)
	must(t, Store("generation/1/http", fd), Unstore("generation/1/http"))

	message, control := make([]byte, 512), make([]byte, 512)
	n, controlled, _, _, err := manager.ReadMsgUnix(message, control)
	must(t, err)
	if got := string(message[:n]); got != "FDSTORE=1\nFDPOLL=0\nFDNAME=generation/1/http" {
		t.Errorf("told %q", got)
	}
	_, fds := takeControl(control[:controlled])
	defer closeFDs(fds)
	if len(fds) != 1 {
		t.Fatalf("%d descriptors came", len(fds))
	}
	if got, err := boundTo(fds[0]); err != nil || got.String() != addr.String() {
		t.Errorf("the socket of %v came, %v", got, err)
	}
	n, controlled, _, _, err = manager.ReadMsgUnix(message, control)
	must(t, err)
	if got := string(message[:n]); got != "FDSTOREREMOVE=1\nFDNAME=generation/1/http" || controlled != 0 {
		t.Errorf("told %q", got)
	}

	for _, name := range []string{"http", "", "generation/1/a:b", "generation/\n"} {
		if err := errors.Join(Store(name, fd), Unstore(name)); !errors.Is(err, ErrStoreName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
