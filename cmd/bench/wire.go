package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// What load and backend say to each other looks like HTTP and is simpler: a
// request has a fixed length, and everything that flows after it, in either
// direction, is the same block again and again.

const (
	requestSize = 64
	blockSize   = 1024      // a response; bulk counts are multiples of it
	bufferSize  = 256 << 10 // read and written at once in bulk
)

var responseStart = []byte("HTTP/1.1 200 OK\r\n")

// blocks is bufferSize bytes of responses, one after the other.
var blocks = bytes.Repeat(responseBlock(), bufferSize/blockSize)

func responseBlock() []byte {
	head := fmt.Appendf(nil, "%sContent-Type: text/plain\r\nContent-Length: ", responseStart)
	length := blockSize - len(head) - len("000\r\n\r\n")
	head = fmt.Appendf(head, "%03d\r\n\r\n", length)
	return append(head, bytes.Repeat([]byte{'b'}, blockSize-len(head))...)
}

// The kinds of request.
const (
	askKeep = "GET /keep" // one block; the connection stays
	askLast = "GET /last" // one block, then the backend closes
	askDown = "GET /down" // N bytes
	askUp   = "PUT /up"   // N bytes follow; one block answers them
	askBoth = "PUT /both" // N bytes each way at once
)

// request makes the bytes of a request; n is used by the bulk kinds.
func request(kind string, n int64) []byte {
	b := fmt.Appendf(nil, "%s/%d HTTP/1.1\r\nHost: bench\r\n", kind, n)
	for len(b) < requestSize-4 {
		b = append(b, 'x')
	}
	return append(b, "\r\n\r\n"...)
}

// parseRequest is the other side of request.
func parseRequest(b []byte) (kind string, n int64, err error) {
	line, _, found := bytes.Cut(b, []byte(" HTTP/1.1\r\n"))
	at := bytes.LastIndexByte(line, '/')
	if !found || at < 0 {
		return "", 0, fmt.Errorf("parse request %q: not one of the bench's", b)
	}
	if n, err = strconv.ParseInt(string(line[at+1:]), 10, 64); err != nil {
		return "", 0, fmt.Errorf("parse request %q: %w", b, err)
	}
	for _, kind := range []string{askKeep, askLast, askDown, askUp, askBoth} {
		if string(line[:at]) == kind {
			return kind, n, nil
		}
	}
	return "", 0, fmt.Errorf("parse request %q: unknown kind", b)
}

// outgoing is what one side still has to write: a number of bytes of blocks. Its
// zero value is nothing.
type outgoing struct {
	left  int64
	phase int // where in a block it goes on
}

// write sends what fits, but no more than a few buffers at once, so that one
// stream does not keep a loop from the others. It tells whether the connection
// broke.
func (o *outgoing) write(fd int) (broken bool) {
	for range 8 {
		if o.left == 0 {
			return false
		}
		b := blocks[o.phase:]
		if int64(len(b)) > o.left {
			b = b[:o.left]
		}
		n, errno := writeRaw(fd, b)
		if errno != 0 {
			return !again(errno)
		}
		o.left -= int64(n)
		o.phase = (o.phase + n) % blockSize
		if n < len(b) {
			return false
		}
	}
	return false
}
