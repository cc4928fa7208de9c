package main

import (
	"bytes"
	"testing"
)

func TestRequestsAreReadAsTheyWereWritten(t *testing.T) {
	for _, kind := range []string{askKeep, askLast, askDown, askUp, askBoth} {
		for _, n := range []int64{0, 1024, maxBytes} {
			b := request(kind, n)
			if len(b) != requestSize {
				t.Errorf("%s/%d: %d bytes", kind, n, len(b))
			}
			gotKind, gotN, err := parseRequest(b)
			if err != nil || gotKind != kind || gotN != n {
				t.Errorf("%s/%d: read as %s/%d, %v", kind, n, gotKind, gotN, err)
			}
		}
	}
	for _, bad := range []string{"", "GET /keep HTTP/1.1\r\n", "GET /keep/x HTTP/1.1\r\n", "GET /else/1 HTTP/1.1\r\n"} {
		if _, _, err := parseRequest([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestBlocksAreWholeResponses(t *testing.T) {
	if len(blocks) != bufferSize || bufferSize%blockSize != 0 {
		t.Fatalf("%d bytes of blocks", len(blocks))
	}
	for at := 0; at < len(blocks); at += blockSize {
		head, body, found := bytes.Cut(blocks[at:at+blockSize], []byte("\r\n\r\n"))
		if !bytes.HasPrefix(head, responseStart) || !found {
			t.Fatalf("block at %d begins with %q", at, head)
		}
		if want := []byte("Content-Length: " + itoa3(len(body))); !bytes.HasSuffix(head, want) {
			t.Fatalf("head %q, body of %d bytes", head, len(body))
		}
	}
}

func itoa3(n int) string {
	return string([]byte{'0' + byte(n/100), '0' + byte(n/10%10), '0' + byte(n%10)})
}

// The backend's reading of a stream does not depend on how it is cut.
func TestServedTakesRequestsInAnyPieces(t *testing.T) {
	var all []byte
	all = append(all, request(askKeep, 0)...)
	all = append(all, request(askUp, 2048)...)
	all = append(all, make([]byte, 2048)...)
	all = append(all, request(askDown, 4096)...)
	all = append(all, request(askLast, 0)...)
	for _, size := range []int{1, 7, requestSize, 1000, len(all)} {
		var c served
		for at := 0; at < len(all); at += size {
			if !c.take(all[at:min(at+size, len(all))]) {
				t.Fatalf("in pieces of %d: refused", size)
			}
		}
		if want := int64(3*blockSize + 4096); c.out.left != want || !c.last {
			t.Errorf("in pieces of %d: %d bytes to send, want %d; last %v", size, c.out.left, want, c.last)
		}
	}
	var c served
	if c.take(bytes.Repeat([]byte{'?'}, requestSize)) {
		t.Error("nonsense was taken")
	}
}
