package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client and a backend that leave the processors to what is tested: a
// connection costs each of them a few system calls on one thread, and nothing of
// it is left when it is over, not even a port in TIME_WAIT (see leanLoad.end).

// serveLean answers "GENERATION\n" to the first bytes of each connection, until
// it is ended by TERM.
func serveLean() {
	runtime.LockOSThread()
	answer := []byte(os.Getenv("PROXYD_GENERATION") + "\n")
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, 3, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: 3})
	}
	events := make([]unix.EpollEvent, 64)
	buf := make([]byte, 64)
	for err == nil {
		var n int
		if n, err = unix.EpollWait(ep, events, -1); errors.Is(err, unix.EINTR) {
			err = nil
			continue
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == 3 {
				if fd, _, err = unix.Accept4(3, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK); err != nil {
					break
				}
			}
			got, readErr := unix.Read(fd, buf)
			if errors.Is(readErr, unix.EAGAIN) {
				err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
				continue
			}
			if got > 0 { // else it was the readiness check
				_, _ = unix.Write(fd, answer)
			}
			unix.Close(fd)
		}
	}
	fmt.Println("cannot serve:", err)
	os.Exit(1)
}

// leanLoad makes connections at a rate, as long as it is not stopped. Each sends
// a byte, and must be answered whole by a generation that was current when its
// handshake began or later.
type leanLoad struct {
	address *unix.SockaddrInet4
	log     *switchLog
	stop    chan struct{}
	ended   sync.WaitGroup
	lots    atomic.Int64 // that were taken to their end

	// Of the goroutine of run, until it has ended.
	done, wrong int
	first       string // what went wrong
	took        time.Duration
}

// Connections are begun leanAtOnce at a time, each lot when it is due or the one
// before is done with.
const (
	leanRate   = 12_000 // a second
	leanAtOnce = 24
)

func startLean(t *testing.T, address string, log *switchLog) *leanLoad {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	n, err := strconv.Atoi(port)
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("address %s, %v", address, err)
	}
	l := &leanLoad{address: &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: n}, log: log, stop: make(chan struct{})}
	l.ended.Add(1)
	go l.run()
	return l
}

// run ends with stop; end waits for it. Its calls block, so it has a thread.
func (l *leanLoad) run() {
	defer l.ended.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	defer func() { l.took = time.Since(began) }()
	due := time.NewTicker(time.Second * leanAtOnce / leanRate)
	defer due.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-due.C:
		}
		l.lot()
		l.lots.Add(1)
	}
}

// awaitLot waits for the end of a lot that begins from now on.
func (l *leanLoad) awaitLot(t *testing.T) {
	t.Helper()
	until := l.lots.Load() + 2 // the first of these may be under way
	await(t, "connections to be made", func() bool { return l.lots.Load() >= until })
}

// lot makes leanAtOnce connections and takes their answers.
func (l *leanLoad) lot() {
	var fds, from [leanAtOnce]int
	for i := range fds {
		from[i] = l.log.now()
		var err error
		if fds[i], err = l.begin(); err != nil {
			l.failed("connection refused or cut: %v", err)
		}
	}
	for i, fd := range fds {
		if fd < 0 {
			continue
		}
		l.done++
		answer, err := l.end(fd)
		if err != nil {
			l.failed("answer %q, %v", answer, err)
		} else if !l.log.allows(from[i], answer) {
			l.failed("answer %q; current since then: %v", answer, l.log.since(from[i]))
		}
	}
}

func (l *leanLoad) failed(format string, a ...any) {
	if l.wrong++; l.wrong == 1 {
		l.first = fmt.Sprintf(format, a...)
	}
}

// begin connects and asks. On an error the descriptor is -1.
func (l *leanLoad) begin() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// A call that takes so long has failed: patience is far off any real time.
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	if err == nil {
		if err = retried(func() error { return unix.Connect(fd, l.address) }); err == nil {
			err = retried(func() error { _, err := unix.Write(fd, []byte("?")); return err })
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// end takes the answer to its end. The other side has closed by then, so a reset
// in place of an orderly end spoils nothing, and leaves no TIME_WAIT behind: it
// ends the other side's FIN-WAIT-2 (RFC 9293, 3.10.7.4).
func (l *leanLoad) end(fd int) (answer string, err error) {
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return "", err
	}
	var buf [64]byte
	for got := 0; ; {
		var n int
		if err := retried(func() (err error) { n, err = unix.Read(fd, buf[got:]); return }); err != nil {
			return string(buf[:got]), err
		}
		if n == 0 {
			answer, whole := strings.CutSuffix(string(buf[:got]), "\n")
			if !whole {
				return answer, errors.New("cut short")
			}
			return answer, nil
		}
		got += n
	}
}

// retried makes a call again that a signal has interrupted; one to connect(2)
// goes on meanwhile, and is done with when the next says so.
func retried(call func() error) error {
	for {
		switch err := call(); {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EALREADY):
		case errors.Is(err, unix.EISCONN):
			return nil
		default:
			return err
		}
	}
}

// check stops the load and wants every connection to have gone well.
func (l *leanLoad) check(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.ended.Wait()
	if l.wrong > 0 {
		t.Fatalf("%d of %d connections went wrong, the first: %s", l.wrong, l.done, l.first)
	}
}
