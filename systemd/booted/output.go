package booted

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
)

// lockedBuffer keeps what the machine's own processes wrote, for an error.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// firstLine takes "pid N" off the top of what init.sh prints. One goroutine of
// os/exec writes to it.
type firstLine struct {
	to   io.Writer
	told chan<- int
	line strings.Builder
	done bool
}

func (f *firstLine) Write(p []byte) (int, error) {
	if f.done {
		return f.to.Write(p)
	}
	f.line.Write(p)
	first, rest, whole := strings.Cut(f.line.String(), "\n")
	if !whole {
		return len(p), nil
	}
	f.done = true
	number, ok := strings.CutPrefix(first, "pid ")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil {
		rest = first + "\n" + rest
	} else {
		f.told <- pid
	}
	if _, err := io.WriteString(f.to, rest); err != nil {
		return 0, err
	}
	return len(p), nil
}
