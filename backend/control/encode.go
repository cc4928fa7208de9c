package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf16"
)

// Encode gives v as JSON on one line, closed by a newline. What is not printable
// is escaped (encoding/json leaves DEL, the C1 controls and the marks that turn
// the direction of text as they are), so that nothing in it can steer a terminal.
func Encode(v any) ([]byte, error) {
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	var safe bytes.Buffer
	for _, r := range plain.String() { // such runes stand in strings only
		switch {
		case r == '\n', unicode.IsPrint(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return safe.Bytes(), nil
}
