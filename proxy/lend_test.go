package proxy

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A Direct that is made anew lends members, whatever it could not check: a
// generation whose queue is full, or what a full machine kept it from.
func TestWhatCannotBeCheckedBreaksNothing(t *testing.T) {
	for name, c := range map[string]struct {
		before func(t *testing.T, d *Direct, fd int)
		unsure error
	}{
		"a full queue": {func(t *testing.T, d *Direct, fd int) {
			if err := unix.Listen(fd, 2); err != nil { // a smaller queue, and nothing else
				t.Fatal(err)
			}
			for range 3 {
				defer dialTo(t, d.Reach("web")).Close()
			}
			if n, room, err := queueOf(fd); n != 3 || room != 2 || err != nil {
				t.Fatal(n, room, err)
			}
		}, nil},
		"too many checks": {func(t *testing.T, d *Direct, _ int) {
			g := d.groups[0]
			for i := range maxProbes {
				g.probes = append(g.probes, probe{net.TCPAddr{IP: g.addr.IP, Port: i + 1}, 1})
			}
		}, errProbes},
	} {
		t.Run(name, func(t *testing.T) {
			addr, fds := membersAt(t, "127.0.0.1", 4, false)
			_, before := newDirect(t, addr, fds)
			mustLend(t, before, 1)
			member, kept, err := before.Lend(context.Background(), 2)
			if err != nil {
				t.Fatal(err)
			}
			if err := before.Steer(2); err != nil {
				t.Fatal(err)
			}
			_, d := newDirect(t, addr, fds)
			c.before(t, d, kept[0])
			if _, err := d.Keep(2, member); err != nil {
				t.Fatal(err)
			}
			if err := d.checkAll(); !errors.Is(err, c.unsure) {
				t.Fatalf("the check says %v", err)
			}
			if err := d.Steer(2); err != nil {
				t.Fatal(err)
			}
			d.groups[0].probes = nil
			if !d.Free() {
				t.Fatal("no member is lent any more")
			}
			mustLend(t, d, 3)
		})
	}
}
