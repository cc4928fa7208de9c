package proxy

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A program that sets an option which is part of its tag is counted all the same, or,
// where its connections cannot be told from another's, is not taken for drained.
func TestAProgramThatChangesItsTag(t *testing.T) {
	for name, c := range map[string]struct {
		members    int
		generation uint64 // has the member of its number
		exact      bool
	}{
		"that is not needed":      {6, 1, true},
		"to one of nobody":        {20, 5, true},
		"to one of another":       {20, 1, false},
		"and is the last of them": {30, 14, false},
	} {
		t.Run(name, func(t *testing.T) {
			addr, fds := membersAt(t, "127.0.0.1", c.members, false)
			_, d := newDirect(t, addr, fds)
			for n := uint64(1); n < c.generation; n++ {
				mustLend(t, d, n)
			}
			fd := mustLend(t, d, c.generation)
			if fd != fds[c.generation] {
				t.Fatal("it has another member")
			}
			mustLend(t, d, 100)
			mustSteer(t, d, c.generation)
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
				t.Fatal(err)
			}
			dialTo(t, addr)
			open := acceptFrom(t, fd)
			mustSteer(t, d, 100)
			drained := d.Drained(c.generation, nil)
			if err := d.Count(); err != nil {
				t.Fatal(err)
			}
			if n := d.InFlight(c.generation); c.exact && n != 1 {
				t.Errorf("%d in flight, not 1", n)
			}
			if also := d.tallies[c.generation].also; c.members <= 16 && len(also) != 0 {
				t.Errorf("what tells nothing in so small a group counts: %v", also)
			}
			told := readTag(fd)
			if c.members > 16 && told != int(c.generation) {
				t.Errorf("its tag is %d now", told)
			}
			looked := func() int {
				d.counting.Lock()
				defer d.counting.Unlock()
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.tallies[c.generation].looks
			}
			eventually(t, "some looks", func() bool { return looked() > 2*sureLooks })
			select {
			case <-drained:
				t.Fatal("drained while a connection is open")
			default:
			}
			unix.Close(open)
			if c.exact {
				<-drained
			}
			d.Return(c.generation)
			<-drained
		})
	}
}

// What a program has set on its sockets is not the next one's.
func TestAMemberIsLentAsNew(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 3, false)
	_, d := newDirect(t, addr, fds)
	fd := mustLend(t, d, 1)
	set := func(level, option, value int) {
		t.Helper()
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
	set(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 3); err != nil {
		t.Fatal(err)
	}
	_, room, err := queueOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	d.Return(1)
	var again int
	eventually(t, "the member", func() bool {
		for n := uint64(2); n < 4; n++ {
			d.Return(n)
		}
		_, lent, err := d.Lend(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		if again = lent[0]; again != fd {
			_, lent, err = d.Lend(t.Context(), 3)
			if err != nil {
				return false
			}
			again = lent[0]
		}
		return again == fd
	})
	deferred, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	if err != nil || deferred != 0 {
		t.Errorf("TCP_DEFER_ACCEPT is %d, %v", deferred, err)
	}
	if _, now, err := queueOf(fd); err != nil || now <= room {
		t.Errorf("its queue has room for %d, as before, %v", now, err)
	}
	if readTag(fd) != 1 {
		t.Errorf("its tag is %d", readTag(fd))
	}
}
