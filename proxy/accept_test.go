package proxy

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever accept4(2) fails with, clients wait and are then served: after a
// rest where descriptors or memory are short, at once where one connection was
// lost on its way.
func TestAcceptFails(t *testing.T) {
	for _, x := range []struct {
		errno syscall.Errno
		rests bool
	}{
		{unix.EMFILE, true}, {unix.ENFILE, true}, {unix.ENOBUFS, true}, {unix.ENOMEM, true},
		{unix.EPROTO, false}, {unix.ECONNABORTED, false}, {unix.EINTR, false}, {unix.EPERM, false},
		{unix.ENETDOWN, false}, {unix.ENOPROTOOPT, false}, {unix.EHOSTDOWN, false}, {unix.ENONET, false},
		{unix.EHOSTUNREACH, false}, {unix.EOPNOTSUPP, true}, {unix.ENETUNREACH, false}, {unix.ETIMEDOUT, false},
		{unix.EINVAL, true},
	} {
		t.Run(unix.ErrnoName(x.errno), func(t *testing.T) {
			const failures = 5
			f := newFront(t, "tcp", Config{Loops: 1})
			back := listenOn(t, "unix")
			l := f.loops[0]
			calls, rests := 0, 0
			f.inLoop(l, func() {
				l.take = func(fd int32) (int32, syscall.Errno) {
					calls++
					if calls > 1 && l.backoff > 0 {
						rests++
					}
					if calls <= failures {
						return -1, x.errno
					}
					return accept(fd)
				}
			})
			c := dial(t, f.ln)
			r := f.to(t, 1, back.Addr())
			f.Switch(r)
			b := take(t, back)
			feed(b, []byte("late"))
			if got := want(c, []byte("late")); got != "4 bytes" {
				t.Error(got)
			}
			f.inLoop(l, func() {
				if x.rests && rests != failures || !x.rests && rests != 0 {
					t.Errorf("rested before %d of %d calls", rests, calls)
				}
				// One that finds nothing may follow, and one for each wake.
				if calls > failures+3 {
					t.Errorf("%d calls", calls)
				}
				if l.resting || l.backoff != 0 || l.listening == 0 {
					t.Errorf("resting %v, backoff %v, listening %v when all is well", l.resting, l.backoff, l.listening)
				}
			})
			if n := f.live.Load(); n != 1 {
				t.Errorf("%d places taken by one connection", n)
			}
		})
	}
}
