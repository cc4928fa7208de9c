package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync/atomic"
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

// needRing gives a ring. Where the kernel has none the test is skipped: what is
// done without it has tests of its own.
func needRing(t *testing.T) *ring {
	t.Helper()
	r, err := newRing()
	if err != nil {
		if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
			t.Fatalf("no io_uring: %v", err)
		}
		t.Skipf("no io_uring: %v", err)
	}
	return r
}

// ringOrPlain gives a kernel with a ring and one without.
func ringOrPlain(t *testing.T, test func(t *testing.T, k *linux)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) { test(t, &linux{many: 1}) })
	t.Run("ring", func(t *testing.T) {
		k := &linux{ring: needRing(t), many: 1}
		defer k.closeRing()
		test(t, k)
		if k.ring == nil {
			t.Error("the ring was given up")
		}
	})
}

// countRings counts the messages that go through the rings of loops that are
// started from now on.
func countRings(t *testing.T) *atomic.Int64 {
	t.Helper()
	needRing(t).close()
	var n atomic.Int64
	openRing = func() (*ring, error) {
		r, err := newRing()
		if err == nil {
			r.enter = func(some uint32) unix.Errno {
				n.Add(int64(some))
				return r.submit(some)
			}
		}
		return r, err
	}
	t.Cleanup(func() { openRing = newRing })
	return &n
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
		socks := pairs(t, 4)
		full, gone, empty, other := int32(socks[0][0]), int32(socks[1][0]), int32(socks[2][0]), int32(socks[3][0])
		for errno := unix.Errno(0); errno == 0; {
			_, errno = k.send(full, make([]byte, 1), false)
		}
		unix.Close(socks[1][1])
		socks[1][1] = -1
		text := make([]byte, 6<<20)
		writes := []write{
			{fd: full, size: 100},
			{fd: gone, size: 100},
			{fd: empty, size: len(text)},
			{fd: math.MaxInt32, size: 100},
			{fd: other, size: 100},
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
	})
}

// A ring that does not work is given up, and everything is sent all the same.
func TestABrokenRing(t *testing.T) {
	r := needRing(t)
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
	k.sendAll(writes, onHeap("onetwo"))
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
	r := needRing(t)
	k := &linux{ring: r, many: 1}
	defer k.closeRing()
	socks := pairs(t, 3)
	for _, most := range []uint32{2, 0, 3, 1, 3} {
		r.enter = func(n uint32) unix.Errno { return r.submit(min(n, most)) }
		var writes []write
		for i, s := range socks {
			writes = append(writes, write{fd: int32(s[0]), at: i, size: 1, sent: undone})
		}
		k.sendAll(writes, onHeap("abc"))
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

// onHeap gives text where no stack that grows moves it, see ring.send.
func onHeap(text string) []byte {
	kept = []byte(text)
	return kept
}

var kept []byte

// Every scenario once more with each message through the ring. As a rule only a
// turn with several goes that way, and a scenario has one connection.
func TestExactThroughTheRing(t *testing.T) {
	n := countRings(t)
	withRingFrom(t, 1)
	for _, sc := range scenarios {
		t.Run(dashed(sc.name), func(t *testing.T) { playAll(t, sc) })
	}
	if n.Load() == 0 {
		t.Error("no message went through a ring")
	}
}

// Many clients with many small messages, so that turns are full of them: each
// gets its own, in order.
func TestManyMessagesInATurn(t *testing.T) {
	for name, many := range map[string]int{"ring": manyAtOnce, "plain": noRing} {
		t.Run(name, func(t *testing.T) {
			n := countRings(t)
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
			if through := n.Load() > 0; through != (name == "ring") {
				t.Errorf("%d messages went through the ring", n.Load())
			}
		})
	}
}

// A ring leaves nothing mapped. (That no descriptor is left TestMain sees.)
func TestARingLeavesNothing(t *testing.T) {
	r := needRing(t)
	mapped := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(maps, []byte("[io_uring]"))
	}
	if mapped() == 0 {
		t.Error("a ring has no memory")
	}
	r.close()
	if n := mapped(); n > 0 {
		t.Errorf("%d mappings of a closed ring are left", n)
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
