package activation

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A process recovers its own sockets here: the kernel takes the same way.
func TestRecoverGivesTheSameQueue(t *testing.T) {
	for _, network := range []string{"tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := map[string]string{"tcp4": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")}[network]
			_, addr := rawListener(t, network, address)
			c, err := net.Dial(addr.Network(), addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			l, err := Recover(os.Getpid(), "http", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(l.FD)
			if n, err := QueueLength(l.FD); err != nil || n != 1 {
				t.Fatalf("its queue holds %d, %v, want the 1 that waits", n, err)
			}
			if l.Name != "http" || l.Addr.String() != addr.String() {
				t.Fatalf("recovered %+v", l)
			}
		})
	}
}

func TestRecoverOfWhatIsNotThere(t *testing.T) {
	if _, err := Recover(os.Getpid(), "http", &net.UnixAddr{Net: "unix", Name: "/nowhere"}); !errors.Is(err, ErrNotHeld) {
		t.Fatalf("got %v, want ErrNotHeld", err)
	}
}
