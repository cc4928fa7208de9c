package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Notification is what one message on a notify socket said, of what proxyd
// listens to (sd_notify(3)).
type Notification struct {
	PID      int    // who sent it, by the kernel's word
	Ready    bool   // READY=1
	Stopping bool   // STOPPING=1
	Status   string // STATUS=, without control characters; empty where not said
}

const (
	// maxMessage is the longest message; systemd's own limit is a page as well
	// (NOTIFY_BUFFER_MAX). A longer one is ignored.
	maxMessage = 4096
	// maxRights is SCM_MAX_FD, the most descriptors that a message carries
	// (unix(7)).
	maxRights = 253
	// readPause is the wait after a failed read, which the kernel gives only when
	// it is out of memory.
	readPause = 10 * time.Millisecond
)

// NotifySocket receives what a generation says of itself.
type NotifySocket struct {
	conn          *net.UnixConn
	file          socketFile
	trusted       func(pid int) bool
	notifications chan Notification
	done          chan struct{}
	once          sync.Once
	reader        sync.WaitGroup
}

// ListenNotify opens a datagram socket at path that processes send sd_notify(3)
// messages to. trusted is asked, from one goroutine, whether the sender of a
// message may speak; the process id is the kernel's (SCM_CREDENTIALS), not what
// the message claims, so MAINPID= is ignored. As with systemd's own notify
// socket anybody who can reach the path may send, and a message from elsewhere
// is ignored: a program that gave up its privileges must still be able to say
// that it is ready. A dead socket at path is replaced.
//
// The caller owns the socket and ends it, and the goroutine that reads it, with
// Close.
func ListenNotify(path string, trusted func(pid int) bool) (*NotifySocket, error) {
	conn, file, err := listenNotify(path)
	if err != nil {
		return nil, fmt.Errorf("listen for notifications on %s: %w", path, err)
	}
	s := &NotifySocket{
		conn: conn, file: file, trusted: trusted,
		notifications: make(chan Notification),
		done:          make(chan struct{}),
	}
	s.reader.Add(1)
	go s.read()
	return s, nil
}

func listenNotify(path string) (*net.UnixConn, socketFile, error) {
	fd, file, err := bindUnix(path, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, socketFile{}, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FilePacketConn works on a duplicate
	err = os.Chmod(path, 0o666)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	var conn net.PacketConn
	if err == nil {
		conn, err = net.FilePacketConn(f)
	}
	if err != nil {
		return nil, socketFile{}, errors.Join(err, file.remove())
	}
	return conn.(*net.UnixConn), file, nil
}

// Notifications gives what was said, in order; it is closed after Close. A
// message that says nothing of interest is passed over. While nobody receives,
// senders wait.
func (s *NotifySocket) Notifications() <-chan Notification { return s.notifications }

// Done is closed by Close.
func (s *NotifySocket) Done() <-chan struct{} { return s.done }

// Close ends the socket, removes its file and waits for the reading goroutine,
// and so for a call of trusted that has not returned. It may be called again.
func (s *NotifySocket) Close() error {
	var err error
	s.once.Do(func() {
		close(s.done)
		err = errors.Join(s.file.remove(), s.conn.Close())
	})
	s.reader.Wait()
	return err
}

// read hands messages on until Close, which waits for it.
func (s *NotifySocket) read() {
	defer s.reader.Done()
	defer close(s.notifications)
	message := make([]byte, maxMessage)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(maxRights*4))
	for {
		// ReadMsgUnix sets MSG_CMSG_CLOEXEC.
		n, controlled, flags, _, err := s.conn.ReadMsgUnix(message, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-s.done:
				return
			case <-time.After(readPause):
				continue
			}
		}
		pid, fds := takeControl(control[:controlled])
		if flags&unix.MSG_TRUNC == 0 && !s.hand(pid, message[:n]) {
			closeFDs(fds)
			return
		}
		// The sender of BARRIER=1 waits for its pipe to be closed
		// (sd_notify_barrier(3)), so this comes after everything that came before
		// it was taken off the channel.
		closeFDs(fds)
	}
}

// hand passes a message on if its sender may speak. It says false after Close.
func (s *NotifySocket) hand(pid int, message []byte) bool {
	n, ok := parseNotification(message)
	if !ok || pid <= 0 || !s.trusted(pid) {
		return true
	}
	n.PID = pid
	select {
	case s.notifications <- n:
		return true
	case <-s.done:
		return false
	}
}

// parseNotification reads newline-separated assignments. It says false where
// none of them is of interest.
func parseNotification(message []byte) (n Notification, ok bool) {
	for line := range strings.Lines(string(message)) {
		line = strings.TrimSuffix(line, "\n")
		switch key, value, _ := strings.Cut(line, "="); {
		case line == "READY=1":
			n.Ready, ok = true, true
		case line == "STOPPING=1":
			n.Stopping, ok = true, true
		case key == "STATUS" && utf8.ValidString(value):
			n.Status, ok = clean(value), true
		}
	}
	return n, ok
}

// clean makes text of a generation safe to show: on one line, with nothing in it
// that a terminal obeys.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// takeControl gives the sender and the descriptors of a message. Every
// descriptor that arrived is in fds, whatever else is wrong.
func takeControl(control []byte) (pid int, fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, rights...)
		}
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid, fds
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
