package activation

import (
	"errors"
	"net"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	path107 := "/" + strings.Repeat("x", 106)
	for in, want := range map[string]string{
		"127.0.0.1:8080":         "tcp 127.0.0.1:8080",
		"[::1]:8080":             "tcp [::1]:8080",
		"[::]:80":                "tcp [::]:80",
		":80":                    "tcp :80",
		"0.0.0.0:0":              "tcp 0.0.0.0:0",
		"[::ffff:127.0.0.1]:1":   "tcp 127.0.0.1:1",
		"[fe80::1%lo]:65535":     "tcp [fe80::1%lo]:65535",
		"unix:/run/x.sock":       "unix /run/x.sock",
		"unix:/with space/é:1":   "unix /with space/é:1",
		"unix:" + path107:        "unix " + path107,
		"unix:/a/../b":           "unix /a/../b",
		"unix:unix:/a":           "",
		"":                       "",
		"80":                     "",
		"/run/x":                 "",
		"localhost:80":           "",
		"127.0.0.1":              "",
		"127.0.0.1:":             "",
		"127.0.0.1:+80":          "",
		"127.0.0.1:-1":           "",
		"127.0.0.1:65536":        "",
		"127.0.0.1:http":         "",
		"::1:80":                 "",
		"[127.0.0.1]:80:1":       "",
		"*:80":                   "",
		"unix:":                  "",
		"unix:rel":               "",
		"unix:@abstract":         "",
		"unix:/":                 "",
		"unix:/dir/":             "",
		"unix:/a\x00b":           "",
		"unix:/a\nb":             "",
		"unix:/a\x7fb":           "",
		"unix:" + path107 + "x":  "",
		"tcp:127.0.0.1:80":       "",
		"http://127.0.0.1:80":    "",
		" 127.0.0.1:80":          "",
		"127.0.0.1:80 ":          "",
		"127.0.0.1:0x50":         "",
		"[fe80::1%]:80":          "",
		"127.0.0.1%lo:80":        "",
		"[::ffff:1.2.3.4%lo]:80": "",
	} {
		got, err := ParseAddress(in)
		if want == "" {
			if err == nil || !errors.Is(err, ErrAddress) && !errors.Is(err, ErrTooLong) {
				t.Errorf("ParseAddress(%q) = %v, %v, want an error", in, got, err)
			}
			continue
		}
		if err != nil || got.Network()+" "+got.String() != want {
			t.Errorf("ParseAddress(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
}

func TestParseAddressSaysWhatToWrite(t *testing.T) {
	for in, want := range map[string]string{
		"8080":         `parse address "8080": not an address to listen on: write :8080`,
		"/run/x":       `parse address "/run/x": not an address to listen on: write unix:/run/x`,
		"::1:80":       `parse address "::1:80": not an address to listen on: an IPv6 address stands in brackets, [::1]:8080`,
		"localhost:80": `parse address "localhost:80": not an address to listen on: the host is an IP address, names are not looked up`,
	} {
		if _, err := ParseAddress(in); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What is taken can be bound to, as far as its form goes, and reads the same
// when it is written out.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1]:0", ":80", "unix:/x", "[fe80::1%1]:2", "[::ffff:1.2.3.4]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := ParseAddress(s)
		if err != nil {
			return
		}
		text := addr.String()
		if tcp, ok := addr.(*net.TCPAddr); !ok {
			text = "unix:" + text
		} else if _, _, err := sockaddr(tcp); err != nil && tcp.Zone == "" {
			t.Fatalf("ParseAddress(%q): %v", s, err)
		}
		again, err := ParseAddress(text)
		if err != nil || again.String() != addr.String() {
			t.Fatalf("ParseAddress(%q) = %s, and that gives %v, %v", s, text, again, err)
		}
	})
}
