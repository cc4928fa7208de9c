package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	maxLine   = 16 << 10  // longer lines are broken, so that one cannot eat memory
	maxKept   = 1 << 10   // bytes of a line of LastLines
	lastLines = 20        // how many LastLines keeps
	fifoSize  = 256 << 10 // what a generation can write while no proxyd reads
	maxDrain  = 4 * fifoSize
)

// output is a generation's standard output and error: a FIFO and the goroutine
// that reads it.
type output struct {
	path     string
	dev, ino uint64
	file     *os.File
	write    func(wholeLines []byte)
	done     chan struct{} // closed when the reader has ended

	partial []byte // of the reader alone

	mu   sync.Mutex
	last []string
}

// makeOutput makes a new FIFO at path. What an earlier run has left there is
// removed: a process that still holds it keeps its own.
func makeOutput(path string, write func([]byte)) (*output, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeNamedPipe {
			return nil, fmt.Errorf("make output fifo: %s exists and is none", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("make output fifo: %w", err)
		}
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make output fifo: %w", &os.PathError{Op: "mkfifo", Path: path, Err: err})
	}
	o, err := openOutput(path, path, write)
	if err != nil {
		_ = os.Remove(path)
		return nil, err
	}
	return o, nil
}

// openOutput opens an existing FIFO, through another name where its own is gone.
// It is opened for reading and writing, so that reading never meets the end of
// file that a program causes by closing its output (fifo(7)).
func openOutput(path, through string, write func([]byte)) (*output, error) {
	f, err := unix.Open(through, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open output fifo: %w", &os.PathError{Op: "open", Path: through, Err: err})
	}
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(f)
		return nil, fmt.Errorf("open output fifo: %s is none", through)
	}
	_, _ = unix.FcntlInt(uintptr(f), unix.F_SETPIPE_SZ, fifoSize) // more is better, not needed
	return &output{path: path, dev: st.Dev, ino: st.Ino, file: os.NewFile(uintptr(f), path), write: write, done: make(chan struct{})}, nil
}

// named gives the path that the kernel knows of the file.
func (o *output) named() (path string) {
	conn, err := o.file.SyscallConn()
	if err != nil {
		return ""
	}
	_ = conn.Control(func(f uintptr) { path, _ = linkOf(os.Getpid(), int(f)) })
	return path
}

// childEnd opens the FIFO for the program: blocking, and for reading and writing
// so that it holds a reader itself and is not killed by SIGPIPE once proxyd has
// died. The caller closes it.
func (o *output) childEnd() (int, error) {
	f, err := unix.Open(o.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, fmt.Errorf("open output fifo: %w", &os.PathError{Op: "open", Path: o.path, Err: err})
	}
	return f, nil
}

// read copies lines. It ends when end was called, or close; these wait for it.
func (o *output) read() {
	defer close(o.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := o.file.Read(buf)
		if n > 0 {
			o.take(buf[:n])
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				o.drain(buf)
			}
			break
		}
	}
	if len(o.partial) > 0 {
		o.take([]byte{'\n'})
	}
}

// drain reads what is in the FIFO now. It is bounded, since a descendant may go
// on writing.
func (o *output) drain(buf []byte) {
	for total := 0; total < maxDrain; {
		n := readNow(o.file, buf)
		if n == 0 {
			return
		}
		total += n
		o.take(buf[:n])
	}
}

// readNow reads what a non-blocking file holds, whatever its deadline; 0 means
// that there is nothing.
func readNow(file *os.File, buf []byte) int {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	for again := true; again; {
		err := conn.Control(func(f uintptr) {
			var err error
			n, err = unix.Read(int(f), buf)
			again = errors.Is(err, unix.EINTR)
		})
		if err != nil {
			return 0
		}
	}
	return max(n, 0)
}

// end reads what is left, ends the reader and removes the FIFO's name. The file
// stays open until close: its inode number tells who belongs to a generation,
// and must not be given to another FIFO meanwhile.
func (o *output) end() {
	_ = o.file.SetReadDeadline(time.Unix(1, 0))
	o.await()
	var st unix.Stat_t
	if unix.Lstat(o.path, &st) == nil && st.Dev == o.dev && st.Ino == o.ino {
		_ = os.Remove(o.path)
	}
}

// close ends the reader, if it still runs, and leaves the FIFO to the next
// proxyd.
func (o *output) close() {
	_ = o.file.Close()
	o.await()
}

// await waits for the reader, for a second at most: Config.Output may block for
// ever, and an exit must be told nevertheless.
func (o *output) await() {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

// take splits what was read into lines, keeps the last ones and hands all on.
func (o *output) take(b []byte) {
	var whole []byte
	for len(b) > 0 {
		line, rest, found := bytes.Cut(b, []byte{'\n'})
		if room := maxLine - len(o.partial); len(line) > room {
			line, rest, found = b[:room], b[room:], true
		}
		o.partial = append(o.partial, line...)
		b = rest
		if found {
			o.keep(o.partial)
			whole = append(append(whole, o.partial...), '\n')
			o.partial = o.partial[:0]
		}
	}
	if len(whole) > 0 {
		o.write(whole)
	}
}

func (o *output) keep(line []byte) {
	text := cleanLine(line)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.last) == lastLines {
		copy(o.last, o.last[1:])
		o.last = o.last[:lastLines-1]
	}
	o.last = append(o.last, text)
}

func (o *output) lines() []string {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.last...)
}

// cleanLine makes a line safe for a terminal: no control or formatting
// characters, valid UTF-8, not long.
func cleanLine(line []byte) string {
	const cut = "…"
	line = bytes.TrimRight(line, "\r")
	long := len(line) > maxKept
	if long {
		line = line[:maxKept-len(cut)]
		for i := 0; i < utf8.UTFMax-1 && len(line) > 0 && !utf8.Valid(line[max(0, len(line)-utf8.UTFMax):]); i++ {
			line = line[:len(line)-1] // a character that was cut through
		}
	}
	text := strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(string(line), string(unicode.ReplacementChar)))
	if long {
		text += cut
	}
	return text
}
