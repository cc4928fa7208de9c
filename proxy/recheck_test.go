package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A generation's program can take its member out of the group, and put it back in
// another place. Then the indexes that are known here are wrong, and that is found
// after the next change, whichever it is, and put right.
func TestAWrongIndexIsFoundAfterEveryChange(t *testing.T) {
	harms := map[string]struct {
		do   func(fd int) error
		left int // how many listen then
	}{
		"left": {func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) }, 4},
		"come back": {func(fd int) error {
			return errors.Join(unix.Shutdown(fd, unix.SHUT_RD), unix.Listen(fd, 4096))
		}, 5},
	}
	changes := map[string]func(t *testing.T, d *Direct) error{
		"a switch":      func(_ *testing.T, d *Direct) error { return d.Steer(1) },
		"lent":          func(t *testing.T, d *Direct) error { _, _, err := d.Lend(t.Context(), 3); return err },
		"given back":    func(_ *testing.T, d *Direct) error { d.Return(1); return nil },
		"started again": func(_ *testing.T, d *Direct) error { d.Recheck(); return nil },
	}
	for _, c := range []struct{ ip, harm, change string }{
		{"127.0.0.1", "come back", "a switch"},
		{"127.0.0.1", "come back", "lent"},
		{"127.0.0.1", "come back", "given back"},
		{"127.0.0.1", "come back", "started again"},
		{"127.0.0.1", "left", "a switch"},
		{"::1", "come back", "a switch"},
		{"::1", "left", "given back"},
	} {
		t.Run(c.ip+" "+c.harm+", "+c.change, func(t *testing.T) {
			t.Parallel() // there is a pause between two checks
			h := harms[c.harm]
			addr, fds := membersAt(t, c.ip, 5, false)
			_, d := newDirect(t, addr, fds)
			first := mustLend(t, d, 1)
			if fds[1] != first {
				t.Fatal("the first member is not lent first")
			}
			second := mustLend(t, d, 2)
			if err := d.Steer(2); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the check after that", func() bool { return !d.changed() })
			d.recheck() // if that is under way it waits for it
			if !d.Free() {
				t.Fatal("no member is lent any more, and nothing is wrong")
			}
			if err := h.do(first); err != nil {
				t.Fatal(err)
			}
			if err := changes[c.change](t, d); err != nil {
				t.Fatal(err)
			}
			g := d.groups[0]
			eventually(t, "each to be where it is thought to be", func() bool {
				for _, m := range g.known() {
					conn, err := g.dial(t.Context(), m)
					if err != nil {
						t.Fatal(err)
					}
					at, err := g.ask(conn)
					conn.Close()
					if err != nil {
						t.Fatal(err)
					}
					if at != m {
						return false
					}
				}
				return len(g.known()) >= h.left
			})
			if err := d.Steer(2); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				c := dialTo(t, addr)
				if at, err := g.ask(c); err != nil || fds[at] != second {
					t.Fatalf("steered to generation 2, arrived at %d, %v", at, err)
				}
			}
			if !d.Free() {
				t.Fatal("no member is lent any more")
			}
		})
	}
}

// What comes and goes behind the members changes no index, and neither does a
// program that asks for another queue's length.
func TestWhatChangesNoIndex(t *testing.T) {
	addr, fds := membersAt(t, "127.0.0.1", 5, false)
	_, d := newDirect(t, addr, fds)
	mustLend(t, d, 1)
	mustLend(t, d, 2)
	for n, harm := range []func(){
		func() { comesAndGoes(t, addr) },
		func() { memberAt(t, addr, false) },
		func() {
			if err := unix.Listen(fds[1], 7); err != nil {
				t.Fatal(err)
			}
		},
	} {
		harm()
		if err := d.Steer(uint64(1 + n%2)); err != nil {
			t.Fatal(err)
		}
		if d.recheck(); !d.Free() {
			_, _, err := d.Lend(context.Background(), 3)
			t.Fatalf("after change %d: %v", n, err)
		}
		for m := 1; m < len(fds); m++ {
			d.groups[0].attach(m, nil)
			c := dialTo(t, addr)
			if at := landed(t, fds); len(at) != 1 || at[0] != m {
				t.Fatalf("aimed at %d, arrived at %v", m, at)
			}
			c.Close()
		}
	}
}

// comesAndGoes joins a group and leaves it.
func comesAndGoes(t *testing.T, addr *net.TCPAddr) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, controlErr)
	}}
	l, err := config.Listen(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
