package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// visitor is one client with a single request, for how long a connection takes
// from connect(2) to the last byte of its answer. All that it needs is there
// before its time counts: it is the service's time, not that of making a socket
// or a thread. Its calls block, on a thread of their own; see spareProcessors.
type visitor struct {
	ask  chan struct{}
	told chan visit
}

type visit struct {
	took time.Duration
	err  error
}

// newVisitor starts it; go on with visit or leave.
func newVisitor(address string) (*visitor, error) {
	sa, err := tcpSockaddr(address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	wait := unix.NsecToTimeval(stallAfter.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		closeRaw(fd)
		return nil, fmt.Errorf("limit wait: %w", err)
	}
	v := &visitor{ask: make(chan struct{}), told: make(chan visit)}
	go v.run(fd, sa)
	return v, nil
}

// visit connects, asks, and gives what that took.
func (v *visitor) visit() (time.Duration, error) {
	v.ask <- struct{}{}
	got := <-v.told
	return got.took, got.err
}

// leave ends a visitor that was not sent.
func (v *visitor) leave() { close(v.ask) }

// run ends with the visit, which waits for it, or with leave.
func (v *visitor) run(fd int, sa *unix.SockaddrInet4) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer closeRaw(fd)
	answer := make([]byte, blockSize)
	if _, sent := <-v.ask; !sent {
		return
	}
	began := time.Now()
	err := visitOnce(fd, sa, answer)
	v.told <- visit{time.Since(began), err}
}

func visitOnce(fd int, sa *unix.SockaddrInet4, answer []byte) error {
	for {
		err := unix.Connect(fd, sa)
		if err == nil || err == unix.EISCONN {
			break
		}
		if err != unix.EINTR && err != unix.EALREADY {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if _, errno := writeRaw(fd, keepRequest); errno != 0 {
		return fmt.Errorf("send: %w", errno)
	}
	for got := 0; got < len(answer); {
		n, err := unix.Read(fd, answer[got:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			return errors.New("receive: connection ended early")
		default:
			got += n
		}
	}
	if !bytes.HasPrefix(answer, responseStart) {
		return errors.New("receive: not the response")
	}
	return nil
}

// spareProcessors gives the scheduler of Go two more, until what it gives is
// called: a thread that comes back from a call would else wait until a loop of
// the load gives up its own, and that wait would be measured.
func spareProcessors() (restore func()) {
	before := runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	return func() { runtime.GOMAXPROCS(before) }
}
