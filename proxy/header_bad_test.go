package proxy

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// A trusted client that does not begin with a whole header, in time and within
// bounds, is reset; no generation hears of it, and others are served meanwhile.
func TestBadHeader(t *testing.T) {
	long := header2(1, 0x11, make([]byte, maxHeader-15))
	for _, x := range []struct {
		name string
		said string
		end  bool
	}{
		{"garbage", "GET / HTTP/1.1\r\n", false},
		{"one wrong byte", "X", false},
		{"almost", "PROXI TCP4", false},
		{"no space", "PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", false},
		{"v1 without an end", "PROXY TCP4 " + strings.Repeat("1", 200), false},
		{"v1 without CR", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", false},
		{"v1 of other things", "PROXY TCP4 one two 3 4\r\n", false},
		{"v1 with a port too many", "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", false},
		{"v2 too long", string(long[:16]), false},
		{"v2 65535 bytes", string(long[:14]) + "\xff\xff", false},
		{"v2 of version 3", strings.Replace(string(header2(1, 0x11, make([]byte, 12))), "\x21", "\x31", 1), false},
		{"v2 of an unknown command", string(header2(7, 0x11, make([]byte, 12))), false},
		{"v2 too short for its family", string(header2(1, 0x21, make([]byte, 12))), false},
		{"half, then the end", "PROXY TCP4 1.2.3.4", true},
		{"nothing, then the end", "", true},
		{"v2 half, then the end", string(header2(1, 0x11, make([]byte, 12))[:20]), true},
		{"nothing, slow", "", false},
		{"half, slow", "PROXY TCP4 1.2.3.4", false},
		{"v2 half, slow", string(header2(1, 0x11, make([]byte, 12))[:20]), false},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := newSpeaking(t, "tcp", "127.0.0.1:0", Listener{ProxyProtocol: 1, AcceptProxy: everywhere}, Config{HeaderTimeout: 100 * time.Millisecond})
			back := listenOn(t, "unix")
			r := f.to(t, 1, back.Addr())
			f.Switch(r)
			c := dial(t, f.ln)
			feed(c, []byte(x.said))
			if x.end {
				c.CloseWrite()
			}
			good := dial(t, f.ln)
			feed(good, []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"))
			b := take(t, back)
			if got := want(b, []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")); got != "32 bytes" {
				t.Fatal(got)
			}
			if got := drain(c); got != "0 bytes 00000000, reset" {
				t.Error(got)
			}
			if n := r.Counts().Accepted; n != 1 {
				t.Errorf("the generation was given %d connections, want 1", n)
			}
			good.Close()
			drain(b)
			b.Close()
			eventually(t, "no connection is left", func() bool { return f.live.Load() == 0 })
		})
	}
}

// A header that comes bit by bit is bounded by one time, not by one for each
// bit.
func TestHeaderTrickles(t *testing.T) {
	f := newSpeaking(t, "tcp", "127.0.0.1:0", Listener{AcceptProxy: everywhere}, Config{HeaderTimeout: 200 * time.Millisecond})
	back := listenOn(t, "unix")
	f.Switch(f.to(t, 1, back.Addr()))
	c := dial(t, f.ln)
	said := []byte("PROXY UNKNOWN " + strings.Repeat("x", 80))
	for i := 0; ; i++ {
		if i == len(said) {
			t.Fatal("it was given the time that each byte takes")
		}
		if _, err := c.Write(said[i : i+1]); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond) // the scenario itself
	}
}

// What a header may be is the same however it is cut: never an error before
// all that was read proves it, and never a size that reaches beyond it.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nrest"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(header2(1, 0x11, make([]byte, 12)))
	f.Add(header2(0, 0, nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := headerSize(b)
		if size < 0 || size > len(b) || size > maxHeader {
			t.Fatalf("size %d of %d bytes", size, len(b))
		}
		for n := range min(len(b), 200) {
			part, partErr := headerSize(b[:n])
			if partErr != nil && err == nil {
				t.Fatalf("%q is refused, and %q is not: %v", b[:n], b, partErr)
			}
			if part != 0 && part != size {
				t.Fatalf("%d bytes of %q, and %d of %q", part, b[:n], size, b)
			}
		}
		if err != nil || size == 0 {
			return
		}
		said, err := parseHeader(b[:size])
		if err != nil {
			if !errors.Is(err, errHeader) {
				t.Fatal(err)
			}
			return
		}
		if said == nil {
			return
		}
		// What was understood can be said in both versions, and is then
		// understood alike.
		for version := 1; version <= 2; version++ {
			h := headers{send: version}
			out, err := h.format(-1, said, b[:size])
			if err != nil {
				t.Fatalf("%+v in version %d: %v", said, version, err)
			}
			again, err := parseHeader(out)
			if err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			if again != nil && (again.SourceAddr.String() != said.SourceAddr.String() || again.DestinationAddr.String() != said.DestinationAddr.String()) {
				t.Fatalf("%v became %v", said, again)
			}
		}
	})
}

func TestLocalHeader(t *testing.T) {
	if got := LocalHeader(0); got != nil {
		t.Errorf("%q", got)
	}
	if got := string(LocalHeader(1)); got != "PROXY UNKNOWN\r\n" {
		t.Errorf("%q", got)
	}
	if got := LocalHeader(2); !bytes.Equal(got, header2(0, 0, nil)) {
		t.Errorf("%q", got)
	}
	if _, err := newHeaders(Listener{ProxyProtocol: 3}); !errors.Is(err, ErrListener) {
		t.Error(err)
	}
	if v := proxyproto.MaxV2HeaderSize; v < maxHeader-16 {
		t.Errorf("the parser takes %d bytes, less than %d", v, maxHeader-16)
	}
}
