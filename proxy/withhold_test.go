package proxy

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// leaver is a program that was told to end and goes on accepting.
type leaver struct {
	fd    int
	wake  [2]int
	took  chan struct{} // one for each client
	ended chan struct{}
}

// startLeaver accepts from a duplicate of fd until stop.
func startLeaver(t *testing.T, fd int) *leaver {
	t.Helper()
	l := &leaver{took: make(chan struct{}, 1000), ended: make(chan struct{})}
	var err error
	if l.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Pipe2(l.wake[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	go l.run()
	return l
}

// run ends with stop, which waits for it.
func (l *leaver) run() {
	defer close(l.ended)
	for {
		reads := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(reads, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if reads[1].Revents != 0 {
			return
		}
		if c, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC); err == nil {
			unix.Close(c)
			l.took <- struct{}{}
		}
	}
}

func (l *leaver) stop() {
	unix.Close(l.wake[1])
	<-l.ended
	unix.Close(l.wake[0])
	unix.Close(l.fd)
}

// What a program may still accept from that is no generation any more is lent to
// nobody: of the clients of the current generation it gets none. When it has ended,
// its member is one like any other.
func TestWithheldMembersAreNotLent(t *testing.T) {
	for name, kept := range map[string]bool{"nobody's": false, "a generation's": true} {
		t.Run(name, func(t *testing.T) {
			addr, fds := membersAt(t, "127.0.0.1", 5, false)
			old := startLeaver(t, fds[1])
			defer func() {
				if old != nil {
					old.stop()
				}
			}()
			_, d := newDirect(t, addr, fds)
			if kept {
				if _, err := d.Keep(1, 1); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Withhold(1); err != nil {
				t.Fatal(err)
			}
			if d.Has(1) {
				t.Fatal("a generation still has the withheld member")
			}
			fd := mustLend(t, d, 2)
			if err := d.Steer(2); err != nil {
				t.Fatal(err)
			}
			for len(old.took) > 0 {
				<-old.took // what looked where its member is
			}
			for range 100 {
				c, err := net.Dial("tcp", addr.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			if n, _, err := queueOf(fd); err != nil || n != 100 {
				t.Errorf("%d of 100 clients came to generation 2, %v", n, err)
			}
			mustLend(t, d, 3)
			if m, _, err := d.Lend(context.Background(), 4); !errors.Is(err, ErrNoMember) {
				t.Fatalf("member %d was lent, %v", m, err)
			}
			if n := len(old.took); n > 0 {
				t.Errorf("what is leaving took %d clients", n)
			}
			if kept { // as many programs do
				if err := unix.Shutdown(old.fd, unix.SHUT_RDWR); err != nil {
					t.Fatal(err)
				}
			}
			old.stop()
			old = nil
			for range 2 { // the second time it means nothing
				if err := d.Readmit(1); err != nil {
					t.Fatal(err)
				}
			}
			// One that was shut down is the last at first, which is lent to nobody: then the
			// one that was the last before is free.
			if got := mustLend(t, d, 4); got != fds[1] && !kept || !isListening(fds[1]) {
				t.Errorf("descriptor %d of %v was lent, the second listens %v", got, fds, isListening(fds[1]))
			}
			if err := d.Readmit(1); err != nil || !d.Has(4) {
				t.Errorf("generation 4 has lost its member, %v", err)
			}
		})
	}
}

func TestWithholdNoMember(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	_, d := newDirect(t, addr, fds)
	for _, m := range []int{-1, 0, 3} {
		if err := d.Withhold(m); !errors.Is(err, ErrGroup) {
			t.Errorf("member %d: %v", m, err)
		}
		if err := d.Readmit(m); err != nil {
			t.Errorf("member %d: %v", m, err)
		}
	}
}
