package activation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Holder is a small process of proxyd's own that keeps the sockets of its
// groups open while no proxyd runs, and gives them to the next one. Generations
// keep them open as well, but a process can be asked for a descriptor only by one
// that may trace it (pidfd_getfd(2)), and a program that holds capabilities, or
// has set PR_SET_DUMPABLE to 0, may be traced by nobody but root; under Yama's
// ptrace_scope=1 no process may but by its ancestors. What comes over a unix socket
// needs no such right.
//
// The holder owns its duplicates and nothing else: no configuration, no state, and
// it accepts nothing. It ends when it is told to, and by itself when no proxyd is
// connected to it and none of the processes that it was told to watch lives: what
// it holds is of use to generations only.
type Holder struct {
	conn *net.UnixConn
	path string
	reap func() // nil where another proxyd has started it
	gone chan struct{}
	once sync.Once
}

// holderName as argv[0] says that this is the holder. How many sockets it has follows,
// and the path, which is for whoever looks at processes.
const holderName = "proxyd-holder"

// What a proxyd asks for, as the first byte of a message. Both sides may be of
// different builds, so these stay as they are.
const (
	askSockets = 'g' // for all that is held; the answer is the same byte with descriptors
	askWatch   = 'w' // a process: its number, 4 bytes little endian, with a pidfd
	askEnd     = 'e' // its end, unless a watched process lives; the connection ends in any case
)

// holderTime bounds each answer of a holder, which takes microseconds.
const holderTime = 5 * time.Second

// mostHeld is how many descriptors one message carries (SCM_MAX_FD, unix(7)).
const mostHeld = 253

// FindHolder connects to the holder of an earlier proxyd at path, and gives it with
// the descriptors that it holds, which are the caller's to close. Where there is
// none that answers, it gives none of both.
func FindHolder(path string) (*Holder, []int) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		return nil, nil
	}
	fds, err := takeHeld(conn)
	if err != nil {
		conn.Close()
		return nil, nil
	}
	return newHolder(conn, path, nil), fds
}

// takeHeld asks for the descriptors.
func takeHeld(conn *net.UnixConn) ([]int, error) {
	if err := conn.SetDeadline(time.Now().Add(holderTime)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{askSockets}); err != nil {
		return nil, err
	}
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*mostHeld))
	n, oobn, flags, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, err
	}
	fds, err := rights(oob[:oobn])
	if err == nil && (n != 1 || b[0] != askSockets || flags&unix.MSG_CTRUNC != 0) {
		err = errors.New("unexpected answer of the holder")
	}
	if err != nil {
		closeFDs(fds)
		return nil, err
	}
	return fds, conn.SetDeadline(time.Time{})
}

// StartHolder starts a holder of fds, which stay the caller's, at path, in the
// place of any that is there. start forks this very program with the given argv,
// environment and descriptors, as no child that anybody else waits for; reap ends and
// reaps it, where End has not. main must call HoldIfAsked.
func StartHolder(path string, fds []int, start func(argv, env []string, files []uintptr) (reap func(), err error)) (*Holder, error) {
	fail := func(err error) (*Holder, error) { return nil, fmt.Errorf("start holder of listeners: %w", err) }
	if len(fds) > mostHeld {
		return fail(fmt.Errorf("%d sockets, it takes %d", len(fds), mostHeld))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	socket, _, err := bindUnix(path, unix.SOCK_SEQPACKET, 0o600)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(socket)
	if err := unix.Listen(socket, mostOwners); err != nil {
		return fail(err)
	}
	// Before it starts, so that its first look finds somebody there.
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		return fail(err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		conn.Close()
		return fail(err)
	}
	defer unix.Close(null)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(socket)}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	reap, err := start([]string{holderName, strconv.Itoa(len(fds)), path}, []string{"GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0"}, files)
	if err != nil {
		conn.Close()
		return fail(err)
	}
	return newHolder(conn, path, reap), nil
}

func newHolder(conn *net.UnixConn, path string, reap func()) *Holder {
	h := &Holder{conn: conn, path: path, reap: reap, gone: make(chan struct{})}
	go h.heed()
	return h
}

// heed waits for the end of the holder, which says nothing unasked, or for Close,
// which waits for it.
func (h *Holder) heed() {
	defer close(h.gone)
	var b [1]byte
	for {
		if _, err := h.conn.Read(b[:]); err != nil {
			return
		}
	}
}

// Gone is closed when the holder has ended, or Close was called.
func (h *Holder) Gone() <-chan struct{} { return h.gone }

// Watch makes the holder stay for as long as the process of a pidfd lives, which
// stays the caller's. It is known from then on, whatever becomes of the caller:
// the message waits in the holder's own queue.
func (h *Holder) Watch(pid, pidfd int) error {
	b := binary.LittleEndian.AppendUint32([]byte{askWatch}, uint32(pid))
	err := h.conn.SetWriteDeadline(time.Now().Add(holderTime))
	if err == nil {
		_, _, err = h.conn.WriteMsgUnix(b, unix.UnixRights(pidfd), nil)
	}
	if err != nil {
		return fmt.Errorf("tell holder of listeners of process %d: %w", pid, err)
	}
	return nil
}

// End ends the holder, unless a process lives that any proxyd had it watch: then it
// is left to itself. When it returns without an error nothing else is held by it.
func (h *Holder) End() error {
	err := h.conn.SetWriteDeadline(time.Now().Add(holderTime))
	if err == nil {
		_, err = h.conn.Write([]byte{askEnd})
	}
	if err == nil {
		select {
		case <-h.gone:
		case <-time.After(holderTime):
			err = os.ErrDeadlineExceeded
		}
	}
	if errors.Is(err, unix.EPIPE) { // it has ended by itself
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("end holder of listeners: %w", err)
	} else if e := os.Remove(h.path); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = fmt.Errorf("end holder of listeners: %w", e)
	}
	err = errors.Join(err, h.Close())
	if h.reap != nil {
		h.once.Do(h.reap)
	}
	return err
}

// Close leaves the holder to itself.
func (h *Holder) Close() error {
	err := h.conn.Close()
	<-h.gone
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// rights gives the descriptors of a message.
func rights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}
