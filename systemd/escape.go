package systemd

import (
	"errors"
	"fmt"
	"strings"
)

// Escape makes s fit to be a part of a unit name, byte for byte as systemd-escape(1)
// does without options: "/" becomes "-", and a first ".", "-", "\" and every byte
// but letters, digits, ":", "_" and "." becomes \xNN.
func Escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/':
			b.WriteByte('-')
		case plain(c) && (c != '.' || i != 0):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// Unescape is the inverse of Escape. It gives an error for what Escape makes of
// no string, so no two names stand for one string.
func Unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '-':
			b.WriteByte('/')
		case c == '\\':
			if len(s) < i+4 || s[i+1] != 'x' {
				return "", fmt.Errorf("unescape %q: %w", s, errEscape)
			}
			hi, lo := strings.IndexByte(hexDigits, s[i+2]), strings.IndexByte(hexDigits, s[i+3])
			if hi < 0 || lo < 0 {
				return "", fmt.Errorf("unescape %q: %w", s, errEscape)
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 3
		default:
			b.WriteByte(c)
		}
	}
	if Escape(b.String()) != s {
		return "", fmt.Errorf("unescape %q: %w", s, errEscape)
	}
	return b.String(), nil
}

const hexDigits = "0123456789abcdef"

var errEscape = errors.New("not escaped as systemd does")

// plain tells whether c stands for itself in an escaped string. "-" does not,
// for it stands for "/".
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == ':' || c == '_' || c == '.'
}
