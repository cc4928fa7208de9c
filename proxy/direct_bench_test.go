package proxy

import (
	"context"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkSteer is a switch, and the first connection that it brings.
func BenchmarkSteer(b *testing.B) {
	addr, fds := membersAt(b, "127.0.0.1", 4, false)
	_, d := newDirect(b, addr, fds)
	members := map[uint64]int{}
	for _, n := range []uint64{1, 2} {
		member, _, err := d.Lend(context.Background(), n)
		if err != nil {
			b.Fatal(err)
		}
		members[n] = member
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := uint64(1 + i%2)
		if err := d.Steer(n); err != nil {
			b.Fatal(err)
		}
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		fd, _, err := unix.Accept4(fds[members[n]], unix.SOCK_CLOEXEC)
		if err != nil {
			b.Fatalf("the first connection did not come to generation %d: %v", n, err)
		}
		unix.Close(fd)
		c.Close()
	}
}

// BenchmarkCount is one look at the open connections of a generation.
func BenchmarkCount(b *testing.B) {
	for _, open := range []int{100, 5000, manyConnections} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) {
			addr, fds := membersAt(b, "127.0.0.1", 4, false)
			_, d := newDirect(b, addr, fds)
			g := newGeneration(b, d, 1)
			if err := d.Steer(1); err != nil {
				b.Fatal(err)
			}
			g.establish(addr, open)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Count(); err != nil {
					b.Fatal(err)
				}
			}
			if n := d.InFlight(1); n != uint64(open) {
				b.Fatalf("counted %d of %d", n, open)
			}
		})
	}
}
