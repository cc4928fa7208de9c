package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var everywhere = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// newSpeaking is newFront for an address, with a listener that has to do with
// headers.
func newSpeaking(t *testing.T, network, address string, l Listener, cfg Config) front {
	t.Helper()
	if network == "unix" {
		dir, err := os.MkdirTemp("", "px")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l.Name, l.FD = "web", descriptorOf(t, ln)
	cfg.Listeners = []Listener{l}
	if cfg.Loops == 0 {
		cfg.Loops = 1
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return front{p, ln}
}

// header2 lays a header of version 2 out by hand.
func header2(command, family byte, body []byte) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

func ends(src, dst netip.AddrPort) []byte {
	b := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}

// expected is the header for a connection between two TCP ends.
func expected(version int, src, dst netip.AddrPort) []byte {
	name, family := "TCP4", byte(0x11)
	if src.Addr().Is6() {
		name, family = "TCP6", 0x21
	}
	if version == 1 {
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", name, src.Addr(), dst.Addr(), src.Port(), dst.Port())
	}
	return header2(1, family, ends(src, dst))
}

func portOf(c net.Conn) uint16 { return c.LocalAddr().(*net.TCPAddr).AddrPort().Port() }

// A generation is told the client's address, in front of the client's bytes,
// over every kind of socket and in both versions.
func TestClientAddressIsTold(t *testing.T) {
	for _, x := range []struct {
		name, network, listen string
		dial                  string // empty: where it listens
		ip                    string
	}{
		{"tcp4", "tcp4", "127.0.0.1:0", "", "127.0.0.1"},
		{"tcp6", "tcp6", "[::1]:0", "", "::1"},
		{"dual-stack by IPv4", "tcp", "[::]:0", "127.0.0.1", "127.0.0.1"},
		{"dual-stack by IPv6", "tcp", "[::]:0", "::1", "::1"},
		{"unix", "unix", "", "", ""},
	} {
		for _, version := range []int{1, 2} {
			for _, out := range []string{"tcp", "unix"} {
				t.Run(fmt.Sprintf("%s v%d %s", x.name, version, out), func(t *testing.T) {
					f := newSpeaking(t, x.network, x.listen, Listener{ProxyProtocol: version}, Config{})
					back := listenOn(t, out)
					r := f.to(t, 1, back.Addr())
					f.Switch(r)
					to := f.ln.Addr().String()
					if x.dial != "" {
						to = net.JoinHostPort(x.dial, fmt.Sprint(f.ln.Addr().(*net.TCPAddr).Port))
					}
					conn, err := net.Dial(f.ln.Addr().Network(), to)
					if err != nil {
						t.Fatal(err)
					}
					c, b := ready(t, conn), take(t, back)
					var header []byte
					if x.ip == "" {
						header = map[int][]byte{1: []byte("PROXY UNKNOWN\r\n"), 2: header2(0, 0, nil)}[version]
					} else {
						ip := netip.MustParseAddr(x.ip)
						header = expected(version, netip.AddrPortFrom(ip, portOf(c)), netip.MustParseAddrPort(to))
					}
					// It comes without a word of the client: the server may
					// speak first.
					if got := want(b, header); got != fmt.Sprintf("%d bytes", len(header)) {
						t.Fatal(got)
					}
					feed(b, []byte("220 hello\r\n"))
					m := pattern(1, 300_000)
					both(func() { feed(c, m); c.CloseWrite() }, func() {
						if got := want(b, m); got != "300000 bytes" {
							t.Error(got)
						}
					})
					b.Close()
					if got := want(c, []byte("220 hello\r\n")); got != "11 bytes" {
						t.Error(got)
					}
					if got := drain(c); !strings.HasSuffix(got, ", end") {
						t.Error(got)
					}
					c.Close()
					f.Switch(nil)
					<-r.Drained()
					if n := r.Counts().BytesFromClients; n != 300_000 {
						t.Errorf("%d bytes counted from clients, 300000 are theirs", n)
					}
				})
			}
		}
	}
}

// A header of a trusted client is taken out of its stream, and handed on as the
// listener says, however it arrives.
func TestTrustedHeader(t *testing.T) {
	src4, dst4 := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:443")
	src6, dst6 := netip.MustParseAddrPort("[2001:db8::7]:4711"), netip.MustParseAddrPort("[2001:db8::1]:443")
	tlv := header2(1, 0x11, append(ends(src4, dst4), 0x05, 0, 3, 'i', 'd', '1'))
	unixEnds := make([]byte, 216)
	copy(unixEnds, "/run/client")
	for _, x := range []struct {
		name   string
		said   []byte
		v1, v2 []byte // nil: the connection's own ends
	}{
		{"v1 tcp4", expected(1, src4, dst4), expected(1, src4, dst4), expected(2, src4, dst4)},
		{"v1 tcp6", expected(1, src6, dst6), expected(1, src6, dst6), expected(2, src6, dst6)},
		{"v2 tcp4", expected(2, src4, dst4), expected(1, src4, dst4), expected(2, src4, dst4)},
		{"v2 tcp6", expected(2, src6, dst6), expected(1, src6, dst6), expected(2, src6, dst6)},
		{"v2 with more than addresses", tlv, expected(1, src4, dst4), tlv},
		{"v2 unix", header2(1, 0x31, unixEnds), []byte("PROXY UNKNOWN\r\n"), header2(1, 0x31, unixEnds)},
		{"v1 unknown", []byte("PROXY UNKNOWN\r\n"), nil, nil},
		{"v1 unknown with words", []byte("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), nil, nil},
		{"v2 local", header2(0, 0, nil), nil, nil},
		{"v2 local with addresses", header2(0, 0x11, ends(src4, dst4)), nil, nil},
		{"v2 unspecified", header2(1, 0, []byte{1, 2, 3}), nil, nil},
		{"v2 as long as can be", header2(1, 0x11, append(ends(src4, dst4), make([]byte, maxHeader-16-12)...)), expected(1, src4, dst4), nil},
	} {
		for send := range 3 {
			for _, bytewise := range []bool{false, true} {
				if bytewise && len(x.said) > 500 {
					continue
				}
				t.Run(fmt.Sprintf("%s to v%d bytewise=%v", x.name, send, bytewise), func(t *testing.T) {
					f := newSpeaking(t, "tcp", "127.0.0.1:0", Listener{ProxyProtocol: send, AcceptProxy: everywhere}, Config{})
					back := listenOn(t, "unix")
					f.Switch(f.to(t, 1, back.Addr()))
					c := dial(t, f.ln)
					own := map[int][]byte{}
					for v := 1; v <= 2; v++ {
						own[v] = expected(v, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portOf(c)), netip.MustParseAddrPort(f.ln.Addr().String()))
					}
					header := map[int][]byte{0: {}, 1: x.v1, 2: x.v2}[send]
					if header == nil {
						header = own[send]
						if strings.Contains(x.name, "as long") {
							header = x.said
						}
					}
					// A second header is payload, whoever sends it.
					payload := append(expected(1, src6, dst6), pattern(1, 100_000)...)
					if bytewise {
						for i := range x.said {
							c.Write(x.said[i : i+1])
						}
						feed(c, payload)
					} else {
						feed(c, append(bytes.Clone(x.said), payload...))
					}
					c.CloseWrite()
					b := take(t, back)
					whole := append(bytes.Clone(header), payload...)
					if got := want(b, whole); got != fmt.Sprintf("%d bytes", len(whole)) {
						t.Fatal(got)
					}
					if got := drain(b); got != "0 bytes 00000000, end" {
						t.Error(got)
					}
				})
			}
		}
	}
}

// What a client that is not trusted sends is never believed: the generation
// reads its real address first, and the bytes after it.
func TestHeaderIsNotBelieved(t *testing.T) {
	lie := expected(1, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"))
	lie2 := expected(2, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"))
	for _, x := range []struct {
		name, network, listen, dial string
		trusted                     []string
		unix                        bool
	}{
		{"nobody is trusted", "tcp", "127.0.0.1:0", "", nil, false},
		{"others are", "tcp", "127.0.0.1:0", "", []string{"10.0.0.0/8", "127.0.0.2/32", "::1/128"}, true},
		{"IPv6 in place of IPv4", "tcp", "[::]:0", "127.0.0.1", []string{"::1/128"}, false},
		// An IPv4 client of a dual-stack listener is one of IPv4 only.
		{"mapped", "tcp", "[::]:0", "127.0.0.1", []string{"::/0", "::ffff:0:0/96"}, false},
		{"unix", "unix", "", "", []string{"0.0.0.0/0", "::/0"}, false},
	} {
		for _, said := range [][]byte{lie, lie2} {
			t.Run(fmt.Sprintf("%s %q", x.name, said[:5]), func(t *testing.T) {
				l := Listener{ProxyProtocol: 1, AcceptProxyUnix: x.unix}
				for _, p := range x.trusted {
					l.AcceptProxy = append(l.AcceptProxy, netip.MustParsePrefix(p))
				}
				f := newSpeaking(t, x.network, x.listen, l, Config{})
				back := listenOn(t, "unix")
				f.Switch(f.to(t, 1, back.Addr()))
				to := f.ln.Addr().String()
				if x.dial != "" {
					to = net.JoinHostPort(x.dial, fmt.Sprint(f.ln.Addr().(*net.TCPAddr).Port))
				}
				conn, err := net.Dial(f.ln.Addr().Network(), to)
				if err != nil {
					t.Fatal(err)
				}
				c := ready(t, conn)
				feed(c, said)
				c.CloseWrite()
				truth := []byte("PROXY UNKNOWN\r\n")
				if x.network != "unix" {
					truth = expected(1, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portOf(c)), netip.MustParseAddrPort(to))
				}
				b := take(t, back)
				if got := want(b, append(truth, said...)); got != fmt.Sprintf("%d bytes", len(truth)+len(said)) {
					t.Fatal(got)
				}
				if got := drain(b); got != "0 bytes 00000000, end" {
					t.Error(got)
				}
			})
		}
	}
}

// A unix listener's clients can be trusted, all or none.
func TestTrustedUnixClient(t *testing.T) {
	src, dst := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:443")
	f := newSpeaking(t, "unix", "", Listener{ProxyProtocol: 2, AcceptProxyUnix: true}, Config{})
	back := listenOn(t, "tcp")
	f.Switch(f.to(t, 1, back.Addr()))
	c := dial(t, f.ln)
	feed(c, append(expected(1, src, dst), "hello"...))
	b := take(t, back)
	header := append(expected(2, src, dst), "hello"...)
	if got := want(b, header); got != fmt.Sprintf("%d bytes", len(header)) {
		t.Fatal(got)
	}
}
