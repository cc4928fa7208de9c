package proxy

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Sizes of streams. Every load that has one is carried once with a GiB over
// each pair of networks; together with each ending it is carried with less,
// which still is more than every buffer on the way.
const (
	giB        = 1 << 30
	fewMiB     = 12 << 20
	blockBytes = 1<<20 - 13
)

// traffic is what goes over a connection before it ends. When it returns, every
// byte of it was read, so what an ending does to bytes on their way is the
// ending's own.
type traffic struct {
	name string
	play func(c, b duplex, s *seen, size int)
}

func upStream(c, b duplex, s *seen, size int) {
	var wrote, read string
	both(func() { wrote = flow(c, size) }, func() { read = swallow(b, size) })
	s.c("up %s", wrote)
	s.b("up %s", read)
}

func downStream(c, b duplex, s *seen, size int) {
	var wrote, read string
	both(func() { wrote = flow(b, size) }, func() { read = swallow(c, size) })
	s.b("down %s", wrote)
	s.c("down %s", read)
}

func smallMessages(c, b duplex, s *seen, n int) {
	for i := range n {
		m := pattern(uint64(i), 1+i*7%3000)
		s.c("%s", feed(c, m))
		s.b("%s %s", want(b, m), feed(b, m))
		s.c("%s", want(c, m))
	}
}

var loads = []traffic{
	{"nothing", func(c, b duplex, s *seen, size int) {}},
	{"server speaks first", func(c, b duplex, s *seen, size int) {
		s.b("%s", feed(b, []byte("220 hello\r\n")))
		s.c("%s", want(c, []byte("220 hello\r\n")))
		smallMessages(c, b, s, 3)
	}},
	{"small messages", func(c, b duplex, s *seen, size int) { smallMessages(c, b, s, 200) }},
	{"one-byte writes", func(c, b duplex, s *seen, size int) {
		m := pattern(1, 2000)
		for _, x := range [][2]duplex{{c, b}, {b, c}} {
			var read string
			both(func() {
				for i := range m {
					x[0].Write(m[i : i+1])
				}
			}, func() { read = want(x[1], m) })
			s.b("one by one %s", read)
		}
	}},
	{"stream up", upStream},
	{"stream down", downStream},
	{"streams both ways", func(c, b duplex, s *seen, size int) {
		var up, down seen
		both(func() { upStream(c, b, &up, size) }, func() { downStream(c, b, &down, size) })
		s.client, s.backend = append(up.client, down.client...), append(up.backend, down.backend...)
	}},
	{"a stream down beside small messages up", func(c, b duplex, s *seen, size int) {
		m := pattern(3, 700)
		var down seen
		var read []string
		both(func() { downStream(c, b, &down, size) }, func() {
			both(func() {
				for range 500 {
					feed(c, m)
				}
			}, func() {
				for range 500 {
					read = append(read, want(b, m))
				}
			})
		})
		s.client, s.backend = down.client, append(down.backend, read...)
	}},
}

// How long a half-open connection stays so: seconds, as real ones do, once over
// each pair of networks, and a moment in all other rows.
const (
	long  = 2 * time.Second
	short = 10 * time.Millisecond
)

// endings are all the ways in which a connection may end. They only say what is
// certain on a direct connection.
var endings = []struct {
	name   string
	resets bool // see scenario
	play   func(t *testing.T, c, b duplex, s *seen)
}{
	{"client ends first", false, func(t *testing.T, c, b duplex, s *seen) {
		c.CloseWrite()
		s.b("%s", drain(b))
		b.Close()
		s.c("%s", drain(c))
	}},
	{"server ends first", false, func(t *testing.T, c, b duplex, s *seen) {
		b.CloseWrite()
		s.c("%s", drain(c))
		c.Close()
		s.b("%s", drain(b))
	}},
	{"both end at once", false, func(t *testing.T, c, b duplex, s *seen) {
		both(func() { b.CloseWrite(); s.b("%s", drain(b)) }, func() { c.CloseWrite(); s.c("%s", drain(c)) })
	}},
	{"client closes right after the last byte", false, func(t *testing.T, c, b duplex, s *seen) {
		s.c("%s", feed(c, pattern(5, 50_000)))
		c.Close()
		s.b("%s", drain(b))
	}},
	{"server closes right after the last byte", false, func(t *testing.T, c, b duplex, s *seen) {
		s.b("%s", feed(b, pattern(5, 50_000)))
		b.Close()
		s.c("%s", drain(c))
	}},
	{"half-close held by the client", false, func(t *testing.T, c, b duplex, s *seen) {
		c.CloseWrite()
		s.b("%s", drain(b))
		s.c("%s", quiet(c, s.hold))
		s.b("%s", feed(b, []byte("late")))
		s.c("%s", want(c, []byte("late")))
		s.c("%s", quiet(c, short))
		b.Close()
		s.c("%s", drain(c))
	}},
	{"half-close held by the server", false, func(t *testing.T, c, b duplex, s *seen) {
		b.CloseWrite()
		s.c("%s", drain(c))
		s.b("%s", quiet(b, s.hold))
		s.c("%s", feed(c, []byte("late")))
		s.b("%s", want(b, []byte("late")))
		s.b("%s", quiet(b, short))
		c.Close()
		s.b("%s", drain(b))
	}},
	{"reset by the client", true, func(t *testing.T, c, b duplex, s *seen) {
		feed(b, []byte("x")) // unread, which is how a unix socket resets
		arrived(t, c)
		reset(t, c)
		s.b("%s", drain(b))
	}},
	{"reset by the server", true, func(t *testing.T, c, b duplex, s *seen) {
		feed(c, []byte("x"))
		arrived(t, b)
		reset(t, b)
		s.c("%s", drain(c))
	}},
	{"client never reads", true, func(t *testing.T, c, b duplex, s *seen) { neverReads(t, b, c, s.b, s.c) }},
	{"server never reads", true, func(t *testing.T, c, b duplex, s *seen) { neverReads(t, c, b, s.c, s.b) }},
	{"server never closes", false, func(t *testing.T, c, b duplex, s *seen) {
		c.CloseWrite()
		s.b("%s", drain(b))
		s.c("%s", quiet(c, short)) // nobody ends it in the server's place
		c.Close()
		for feed(b, make([]byte, 1000)) == "written" { // the server hears of it when it speaks
		}
		s.b("write fails")
	}},
	{"client never closes", false, func(t *testing.T, c, b duplex, s *seen) {
		b.CloseWrite()
		s.c("%s", drain(c))
		s.b("%s", quiet(b, short))
		b.Close()
		for feed(c, make([]byte, 1000)) == "written" {
		}
		s.c("write fails")
	}},
}

// neverReads fills the way to a peer that does not read until no more goes in,
// and then has it leave. The writer must be held back, and then told.
func neverReads(t *testing.T, from, to duplex, fs, ts func(string, ...any)) {
	buf := make([]byte, 64<<10)
	for n := 0; ; n++ {
		if n > 4096 {
			fs("%d bytes are not too many", n*len(buf))
			return
		}
		from.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := from.Write(buf); err != nil {
			fs("held back: %v", os.IsTimeout(err))
			break
		}
	}
	from.SetWriteDeadline(time.Now().Add(patience))
	to.Close() // with bytes unread: that is a reset
	ts("leaves")
	for feed(from, buf) == "written" {
	}
	fs("write fails")
}

// quiet tells what comes within d: nothing, if all is well.
func quiet(c net.Conn, d time.Duration) string {
	c.SetReadDeadline(time.Now().Add(d))
	defer c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(make([]byte, 1))
	if os.IsTimeout(err) {
		return "nothing comes"
	}
	return fmt.Sprintf("%d bytes, %s", n, ending(err))
}

// Every load with every ending, over every pair of networks, against the same
// on a direct connection.
func TestEveryLoadWithEveryEnding(t *testing.T) {
	for _, e := range endings {
		for _, l := range loads {
			hold := short
			if l.name == "small messages" {
				hold = long
			}
			t.Run(dashed(l.name+", "+e.name), func(t *testing.T) {
				if hold == long && strings.HasPrefix(e.name, "half-close") {
					t.Parallel()
				}
				playAll(t, scenario{l.name, e.resets, func(t *testing.T, c, b duplex, s *seen) {
					l.play(c, b, s, fewMiB)
					s.hold = hold
					e.play(t, c, b, s)
				}})
			})
		}
	}
}

// 1 GiB each way, by checksum. With -short it is 64 MiB.
func TestGiB(t *testing.T) {
	size := giB
	if testing.Short() {
		size = streamBytes
	}
	for _, l := range loads {
		if !strings.Contains(l.name, "stream") {
			continue
		}
		t.Run(dashed(l.name), func(t *testing.T) {
			playAll(t, scenario{l.name, false, func(t *testing.T, c, b duplex, s *seen) {
				l.play(c, b, s, size)
				c.CloseWrite()
				s.b("%s", drain(b))
				b.Close()
				s.c("%s", drain(c))
			}})
		})
	}
}
