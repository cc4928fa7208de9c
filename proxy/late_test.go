package proxy

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A handshake that began for a generation and ends after it is gone comes to no
// generation that is only staged: its member is lent to none before. It is
// relayed to the current one. TCP_DEFER_ACCEPT keeps it from ending until the
// client sends something, see tcp(7).
func TestAMemberIsNotLentBeforeItsHandshakesAreOver(t *testing.T) {
	for name, c := range map[string]struct {
		killed  bool // while it was current
		drained bool // was looked at before it ended
	}{
		"left":             {},
		"left and counted": {drained: true},
		"killed":           {killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			addr, fds := membersAt(t, "127.0.0.1", 3, false)
			p, d := newDirect(t, addr, fds)
			for _, fd := range fds {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
					t.Fatal(err)
				}
			}
			first := mustLend(t, d, 1)
			mustLend(t, d, 2)
			steer := func(generation uint64) {
				t.Helper()
				if err := d.Steer(generation); err != nil {
					t.Fatal(err)
				}
			}
			steer(2)
			client := dialTo(t, addr)
			if !c.killed {
				steer(1)
			}
			for range sureLooks {
				if !c.drained {
					break
				}
				if err := d.Count(); err != nil {
					t.Fatal(err)
				}
			}
			d.Return(2)
			steer(1)
			r, err := p.NewRoute(1, map[string]net.Addr{"web": d.Reach("web")})
			if err != nil {
				t.Fatal(err)
			}
			r.KeepOrder()
			p.Switch(r)
			if _, _, err := d.Lend(context.Background(), 3); !errors.Is(err, ErrNoMember) {
				t.Fatalf("the member that a handshake is under way to: %v", err)
			}
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			fd := acceptFrom(t, first)
			defer unix.Close(fd)
			var b [2]byte
			eventually(t, "its byte", func() bool { n, _ := unix.Read(fd, b[:]); return n == 1 })
			eventually(t, "the member to be lent", func() bool {
				_, _, err := d.Lend(context.Background(), 3)
				return err == nil
			})
		})
	}
}
