package activation

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rawListener gives a listening descriptor that nobody accepts from.
func rawListener(t *testing.T, network, address string) (fd int, addr net.Addr) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(p uintptr) { fd = int(p) })
	return fd, l.Addr()
}

func TestQueueLengthCountsWaitingConnections(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s")}[network]
			fd, addr := rawListener(t, network, address)
			for want := range 4 {
				got, err := QueueLength(fd)
				if err != nil || got != want {
					t.Fatalf("QueueLength = %d, %v, want %d", got, err, want)
				}
				c, err := net.Dial(addr.Network(), addr.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			accepted, _, err := unix.Accept(fd)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(accepted)
			if got, err := QueueLength(fd); err != nil || got != 3 {
				t.Fatalf("QueueLength after an accept = %d, %v, want 3", got, err)
			}
		})
	}
}

func TestQueueLengthOfNoSocket(t *testing.T) {
	if n, err := QueueLength(1 << 20); err == nil {
		t.Fatalf("QueueLength of a closed descriptor = %d, want an error", n)
	}
}

func FuzzParseUnixQueue(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseUnixQueue(b); err == nil && n < 0 {
			t.Fatalf("a queue of %d", n)
		}
	})
}
