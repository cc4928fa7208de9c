package activation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	l, err := Listen("http", "unix:"+path)
	opened(t, l, err)
	tcp, err := Listen("http", "127.0.0.1:0")
	opened(t, tcp, err)
	group, err := ListenGroup("http", "127.0.0.1:0", 2)
	must(t, err)
	for _, member := range group {
		opened(t, member, nil)
	}
	for address, want := range map[string]error{
		"127.0.0.1:0": nil, "[::1]:0": nil, ":0": nil, "unix:" + path + "2": nil,
		tcp.Addr.String():       ErrInUse,
		group[0].Addr.String():  ErrInUse, // nobody else's socket may join
		"unix:" + path:          ErrInUse,
		"unix:" + dir + "/file": ErrNoSocket, "unix:" + dir + "/no/s": unix.ENOENT,
		"192.0.2.1:80": unix.EADDRNOTAVAIL, "localhost:80": ErrAddress,
	} {
		if err := Probe(address); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("it left %v, %v", entries, err)
	}
	// Nobody was let in, and what was probed can be listened on.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err, free.Close(), Probe(free.Addr().String()))
	again, err := Listen("http", free.Addr().String())
	opened(t, again, err)
}
