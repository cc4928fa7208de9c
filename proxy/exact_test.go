package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// seen is what the two ends of a connection saw, line by line.
type seen struct {
	client, backend []string
	hold            time.Duration // see long and short
}

func (s *seen) c(format string, a ...any) { s.client = append(s.client, fmt.Sprintf(format, a...)) }
func (s *seen) b(format string, a ...any) { s.backend = append(s.backend, fmt.Sprintf(format, a...)) }

// A scenario plays both ends of a connection. Each is run over every pair of
// networks through the proxy, and directly over each network; an end must see
// through the proxy what it sees on a direct connection of its own network.
type scenario struct {
	name string
	// resets: the ending is a reset. A unix peer can only be reset while it
	// has something unread, so where it is the one that is told, a plain end
	// is as near as one can get.
	resets bool
	play   func(t *testing.T, c, b duplex, s *seen)
}

var scenarios = []scenario{
	{"small messages, client ends first", false, func(t *testing.T, c, b duplex, s *seen) {
		both(func() {
			for i := range 200 {
				m := pattern(uint64(i), 1+i*7)
				s.b("%s %s", want(b, m), feed(b, m))
			}
			s.b("%s", drain(b))
			b.Close()
		}, func() {
			for i := range 200 {
				m := pattern(uint64(i), 1+i*7)
				s.c("%s %s", feed(c, m), want(c, m))
			}
			c.CloseWrite()
			s.c("%s", drain(c))
		})
	}},
	{"server speaks and ends first", false, func(t *testing.T, c, b duplex, s *seen) {
		s.b("%s", feed(b, []byte("220 hello\r\n")))
		s.c("%s", want(c, []byte("220 hello\r\n")))
		b.CloseWrite()
		s.c("%s", drain(c))
		s.c("%s", feed(c, pattern(1, 5000)))
		c.Close()
		s.b("%s", drain(b))
	}},
	{"both end at once", false, func(t *testing.T, c, b duplex, s *seen) {
		both(func() { s.b("%s", feed(b, pattern(1, 100))); b.CloseWrite(); s.b("%s", drain(b)) },
			func() { s.c("%s", feed(c, pattern(2, 300))); c.CloseWrite(); s.c("%s", drain(c)) })
	}},
	{"nothing is sent", false, func(t *testing.T, c, b duplex, s *seen) {
		c.Close()
		s.b("%s", drain(b))
	}},
	{"half-close held by the client", false, func(t *testing.T, c, b duplex, s *seen) {
		s.c("%s", feed(c, pattern(1, 70_000)))
		c.CloseWrite()
		s.b("%s", drain(b))
		for i := range 50 { // the other half lives on
			m := pattern(uint64(i), 3000)
			both(func() { s.b("%s", feed(b, m)) }, func() { s.c("%s", want(c, m)) })
		}
		b.Close()
		s.c("%s", drain(c))
	}},
	{"half-close held by the server", false, func(t *testing.T, c, b duplex, s *seen) {
		b.CloseWrite()
		s.c("%s", drain(c))
		for i := range 50 {
			m := pattern(uint64(i), 3000)
			both(func() { s.c("%s", feed(c, m)) }, func() { s.b("%s", want(b, m)) })
		}
		c.Close()
		s.b("%s", drain(b))
	}},
	{"stream up", false, func(t *testing.T, c, b duplex, s *seen) {
		m := pattern(1, streamBytes)
		both(func() { s.c("%s", feed(c, m)); c.CloseWrite() }, func() { s.b("%s", drain(b)); b.Close() })
		s.c("%s", drain(c))
	}},
	{"stream down, closed right after the last byte", false, func(t *testing.T, c, b duplex, s *seen) {
		m := pattern(1, streamBytes)
		both(func() { s.b("%s", feed(b, m)); b.Close() }, func() { s.c("%s", drain(c)) })
	}},
	{"streams both ways", false, func(t *testing.T, c, b duplex, s *seen) {
		up, down := pattern(1, streamBytes), pattern(2, streamBytes)
		var upFed, upRead, downFed, downRead string
		both(func() {
			both(func() { downFed = feed(b, down); b.CloseWrite() }, func() { downRead = drain(c) })
		}, func() {
			both(func() { upFed = feed(c, up); c.CloseWrite() }, func() { upRead = drain(b) })
		})
		s.c("%s, %s", upFed, downRead)
		s.b("%s, %s", downFed, upRead)
	}},
	{"one-byte writes", false, func(t *testing.T, c, b duplex, s *seen) {
		m := pattern(1, 3000)
		both(func() {
			for i := range m {
				c.Write(m[i : i+1])
			}
			c.CloseWrite()
		}, func() { s.b("%s", drain(b)); b.Close() })
		s.c("%s", drain(c))
	}},
	{"client closes right after the last byte", false, func(t *testing.T, c, b duplex, s *seen) {
		both(func() { s.c("%s", feed(c, pattern(1, 3<<20))); c.Close() }, func() { s.b("%s", drain(b)) })
	}},
	{"reader starts late", false, func(t *testing.T, c, b duplex, s *seen) {
		m := pattern(1, 16<<20)
		go func() { feed(b, m); b.Close() }()
		arrived(t, c)
		s.c("%s", drain(c))
	}},
	{"reset by the client after data", true, func(t *testing.T, c, b duplex, s *seen) {
		feed(b, []byte("x"))
		arrived(t, c)
		s.c("%s", feed(c, pattern(1, 100_000)))
		reset(t, c)
		s.b("%s", drain(b))
	}},
	{"reset by the server after data", true, func(t *testing.T, c, b duplex, s *seen) {
		feed(c, []byte("x"))
		arrived(t, b)
		s.b("%s", feed(b, pattern(1, 100_000)))
		reset(t, b)
		s.c("%s", drain(c))
	}},
	{"reset by the client in the middle of a stream to it", true, func(t *testing.T, c, b duplex, s *seen) {
		both(func() {
			for {
				if w := feed(b, make([]byte, 64<<10)); w != "written" {
					s.b("%s", w)
					return
				}
			}
		}, func() { arrived(t, c); reset(t, c) })
	}},
	{"reset by the server in the middle of a stream to it", true, func(t *testing.T, c, b duplex, s *seen) {
		both(func() {
			for {
				if w := feed(c, make([]byte, 64<<10)); w != "written" {
					s.c("%s", w)
					return
				}
			}
		}, func() { arrived(t, b); reset(t, b) })
	}},
	{"reset by the client after its end of stream", true, func(t *testing.T, c, b duplex, s *seen) {
		c.CloseWrite()
		s.b("%s", drain(b))
		feed(b, pattern(1, 100))
		arrived(t, c)
		reset(t, c)
		for feed(b, make([]byte, 1000)) == "written" {
		}
		s.b("write fails")
	}},
}

// streamBytes is more than every buffer on the way together.
const streamBytes = 64 << 20

func TestExact(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(dashed(sc.name), func(t *testing.T) { playAll(t, sc) })
	}
}

func dashed(name string) string { return strings.ReplaceAll(name, " ", "-") }

// playAll plays a scenario directly and over every pair of networks.
func playAll(t *testing.T, sc scenario) {
	networks := []string{"tcp", "unix"}
	direct := map[string]seen{}
	for _, network := range networks {
		direct[network] = playDirect(t, sc, network)
	}
	for _, in := range networks {
		for _, out := range networks {
			t.Run(in+"-"+out, func(t *testing.T) {
				got := playRelayed(t, sc, in, out)
				compare(t, "client", got.client, direct[in].client, sc.resets && in == "unix")
				compare(t, "backend", got.backend, direct[out].backend, sc.resets && out == "unix")
			})
		}
	}
}

func compare(t *testing.T, who string, got, want []string, lenient bool) {
	t.Helper()
	g, w := strings.Join(got, "\n"), strings.Join(want, "\n")
	if lenient {
		g, w = strings.ReplaceAll(g, ", reset", ", end"), strings.ReplaceAll(w, ", reset", ", end")
	}
	if g != w {
		t.Errorf("%s saw\n%s\nand on a direct connection\n%s", who, clip(g), clip(w))
	}
}

func clip(s string) string {
	if len(s) > 600 {
		return s[:300] + " ... " + s[len(s)-300:]
	}
	return s
}

func playDirect(t *testing.T, sc scenario, network string) (s seen) {
	t.Helper()
	ln := listenOn(t, network)
	c := dial(t, ln)
	b := take(t, ln)
	sc.play(t, c, b, &s)
	return s
}

func playRelayed(t *testing.T, sc scenario, in, out string) (s seen) {
	t.Helper()
	f := newFront(t, in, Config{Loops: 1})
	back := listenOn(t, out)
	r := f.to(t, 1, back.Addr())
	f.Switch(r)
	c := dial(t, f.ln)
	b := take(t, back)
	if n := r.Counts().InFlight; n != 1 {
		t.Errorf("%d in flight while one is served", n)
	}
	sc.play(t, c, b, &s)
	for _, x := range []net.Conn{c, b} {
		x.Close()
	}
	f.Switch(nil)
	<-r.Drained()
	if n := f.live.Load(); n != 0 {
		t.Errorf("%d connections left", n)
	}
	return s
}
