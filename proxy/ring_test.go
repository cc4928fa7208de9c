package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// withRingFrom has loops use the ring from that many messages on.
func withRingFrom(t *testing.T, many int) {
	t.Helper()
	was := manyAtOnce
	manyAtOnce = many
	t.Cleanup(func() { manyAtOnce = was })
}

// noRing is more messages than a turn has.
const noRing = math.MaxInt

// ringOrPlain gives a kernel with a ring, where this machine has that, and one
// without.
func ringOrPlain(t *testing.T, test func(t *testing.T, k *linux)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) { test(t, &linux{many: 1}) })
	r, err := newRing()
	if err != nil {
		t.Logf("no io_uring here (%v): only what is done without it can be tested", err)
		return
	}
	t.Run("ring", func(t *testing.T) {
		k := &linux{ring: r, many: 1}
		defer k.closeRing()
		test(t, k)
		if k.ring == nil {
			t.Error("the ring was given up")
		}
	})
}

// pairs gives n pairs of connected unix sockets; the first of each is written to.
func pairs(t *testing.T, n int) [][2]int {
	t.Helper()
	all := make([][2]int, n)
	for i := range all {
		var err error
		all[i], err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(all[i][0]); unix.Close(all[i][1]) })
	}
	return all
}

// More messages than the ring holds, some for nobody: each comes to its socket,
// whole and once.
func TestSendAll(t *testing.T) {
	ringOrPlain(t, func(t *testing.T, k *linux) {
		const n = 2*ringSize + 100
		socks := pairs(t, n)
		var text []byte
		var writes []write
		for i, s := range socks {
			w := write{at: len(text), fd: int32(s[0]), sent: undone}
			text = append(text, pattern(uint64(i), 1+i)...)
			w.size = len(text) - w.at
			if i%7 == 0 {
				w.fd = -1
			}
			writes = append(writes, w)
		}
		for range 3 { // the ring goes round
			for i := range writes {
				writes[i].sent = undone
			}
			k.sendAll(writes, text)
			for i, w := range writes {
				got := make([]byte, n+10)
				m, err := unix.Read(socks[i][1], got)
				switch {
				case w.fd < 0:
					if err != unix.EAGAIN || w.sent != undone {
						t.Fatalf("message %d is for nobody, and %d bytes came (%v, %d)", i, m, err, w.sent)
					}
				case int(w.sent) != w.size || !bytes.Equal(got[:max(m, 0)], text[w.at:w.at+w.size]):
					t.Fatalf("message %d of %d bytes: %d sent, %d came", i, w.size, w.sent, m)
				}
			}
		}
	})
}

// What a socket does not take is told as send(2) tells it: of one that is full,
// one that has room for a part, one whose peer is gone, and one that is none.
func TestSendAllTellsWhatFailed(t *testing.T) {
	ringOrPlain(t, func(t *testing.T, k *linux) {
		ln := listenOn(t, "tcp")
		out := dial(t, ln)
		in := take(t, ln)
		tcp := descriptorOfConn(t, out)
		for { // full, but for what does not fill a message
			if _, errno := k.send(int32(tcp), make([]byte, 1<<20), false); errno != 0 {
				break
			}
		}
		socks := pairs(t, 2)
		unix.Close(socks[0][1])
		socks[0][1] = -1
		text := make([]byte, 6<<20)
		fresh := dial(t, ln)
		defer take(t, ln).Close()
		writes := []write{
			{fd: int32(tcp), size: 100},
			{fd: int32(socks[0][0]), size: 100},
			{fd: int32(descriptorOfConn(t, fresh)), size: len(text)},
			{fd: math.MaxInt32, size: 100},
			{fd: int32(socks[1][0]), size: 100},
		}
		for i := range writes {
			writes[i].sent = undone
		}
		k.sendAll(writes, text)
		var got []int32
		for _, w := range writes {
			got = append(got, w.sent)
		}
		if got[2] <= 0 || got[2] >= int32(len(text)) {
			t.Errorf("%d of %d bytes were sent to a socket with room for some", got[2], len(text))
		}
		got[2] = 0
		if want := []int32{-int32(unix.EAGAIN), -int32(unix.EPIPE), 0, -int32(unix.EBADF), 100}; !slices.Equal(got, want) {
			t.Errorf("sent %v, want %v", got, want)
		}
		in.Close()
	})
}

func descriptorOfConn(t *testing.T, c duplex) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(s uintptr) { fd = int(s) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// A ring that does not work is given up, and everything is sent all the same.
func TestABrokenRing(t *testing.T) {
	r, err := newRing()
	if err != nil {
		t.Logf("no io_uring here (%v), so none can break", err)
		return
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(r.fd)
	r.fd = null // io_uring_enter(2) refuses it
	k := &linux{ring: r, many: 1}
	defer k.closeRing()
	socks := pairs(t, 2)
	writes := []write{{fd: int32(socks[0][0]), size: 3, sent: undone}, {fd: int32(socks[1][0]), at: 3, size: 3, sent: undone}}
	k.sendAll(writes, []byte("onetwo"))
	for i, want := range []string{"one", "two"} {
		b := make([]byte, 10)
		n, err := unix.Read(socks[i][1], b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q came (%v), want %q", b[:max(n, 0)], err, want)
		}
	}
	if k.ring != nil {
		t.Error("a ring that does not work is kept")
	}
}

// What the ring takes only in part is sent without it, once, and the ring goes
// on with the next.
func TestARingThatTakesAPart(t *testing.T) {
	r, err := newRing()
	if err != nil {
		t.Logf("no io_uring here (%v), so none can take a part", err)
		return
	}
	k := &linux{ring: r, many: 1}
	defer k.closeRing()
	socks := pairs(t, 3)
	for _, most := range []uint32{2, 0, 3, 1, 3} {
		r.enter = func(n uint32) unix.Errno { return r.submit(min(n, most)) }
		var writes []write
		for i, s := range socks {
			writes = append(writes, write{fd: int32(s[0]), at: i, size: 1, sent: undone})
		}
		k.sendAll(writes, []byte("abc"))
		for i, s := range socks {
			b := make([]byte, 10)
			n, err := unix.Read(s[1], b)
			if err != nil || string(b[:n]) != "abc"[i:i+1] || writes[i].sent != 1 {
				t.Errorf("with %d of 3 taken %q came (%v, %d sent), want %q", most, b[:max(n, 0)], err, writes[i].sent, "abc"[i:i+1])
			}
		}
	}
	if k.ring == nil {
		t.Error("a ring that was short of something for a moment is given up")
	}
}

// Every scenario once more with each message through the ring. As a rule only a
// turn with several goes that way, and a scenario has one connection.
func TestExactThroughTheRing(t *testing.T) {
	withRingFrom(t, 1)
	for _, sc := range scenarios {
		t.Run(dashed(sc.name), func(t *testing.T) { playAll(t, sc) })
	}
}

// Many clients with many small messages, so that turns are full of them: each
// gets its own, in order.
func TestManyMessagesInATurn(t *testing.T) {
	for name, many := range map[string]int{"ring": 1, "plain": noRing} {
		t.Run(name, func(t *testing.T) {
			withRingFrom(t, many)
			f := newFront(t, "tcp", Config{Loops: 1})
			back := listenOn(t, "unix")
			r := f.to(t, 1, back.Addr())
			f.Switch(r)
			const clients, messages = 100, 200
			failed := make(chan error, 2*clients)
			for i := range clients {
				c := dial(t, f.ln)
				b := take(t, back)
				go echo(b, failed)
				go ask(c, uint64(i), messages, failed)
			}
			for range 2 * clients {
				if err := <-failed; err != nil {
					t.Error(err)
				}
			}
			f.Switch(nil)
			<-r.Drained()
		})
	}
}

// echo sends back what comes, until its end, and tells what failed.
func echo(b duplex, failed chan<- error) {
	_, err := io.Copy(b, b)
	b.Close()
	failed <- err
}

// ask sends n messages, wants each back, ends the stream and wants its end.
func ask(c duplex, seed uint64, n int, failed chan<- error) {
	defer c.Close()
	for i := range n {
		m := pattern(seed*uint64(n)+uint64(i), 1+(i*37)%smallBuffer)
		if said, got := feed(c, m), want(c, m); said != "written" || got != want(bytes.NewReader(m), m) {
			failed <- fmt.Errorf("client %d, message %d: %s, %s", seed, i, said, got)
			return
		}
	}
	c.CloseWrite()
	if got := drain(c); got != drain(bytes.NewReader(nil)) {
		failed <- fmt.Errorf("client %d, at the end: %s", seed, got)
		return
	}
	failed <- nil
}
