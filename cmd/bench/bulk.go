package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stream is one bulk connection of the load.
type stream struct {
	fd      int
	in      int64 // bytes still to come
	out     outgoing
	writing bool // EPOLLOUT is asked for
}

// runBulk moves n bytes (a multiple of blockSize) each way that kind asks for on
// each of count connections, and gives how long that took. Connections are made
// before the clock runs.
func runBulk(ctx context.Context, address, kind string, count int, n int64) (time.Duration, error) {
	sa, err := tcpSockaddr(address)
	if err != nil {
		return 0, err
	}
	loops := make([]bulkLoop, min(count, runtime.NumCPU()))
	for i := range loops {
		defer loops[i].close()
		if err := loops[i].prepare(sa, share(count, i, len(loops))); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range loops {
		wg.Go(func() { loops[i].err = loops[i].run(ctx, kind, n) })
	}
	wg.Wait()
	errs := []error{ctx.Err()}
	for i := range loops {
		errs = append(errs, loops[i].err)
	}
	return time.Since(start), errors.Join(errs...)
}

// bulkLoop is used by one thread at a time.
type bulkLoop struct {
	epfd    int
	streams []stream
	buf     []byte
	err     error
}

func (l *bulkLoop) close() {
	for _, s := range l.streams {
		closeRaw(s.fd)
	}
	if l.epfd > 0 {
		closeRaw(l.epfd)
	}
}

func (l *bulkLoop) prepare(sa *unix.SockaddrInet4, count int) (err error) {
	l.buf = make([]byte, bufferSize)
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for range count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make socket: %w", err)
		}
		l.streams = append(l.streams, stream{fd: fd})
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := unix.Connect(fd, sa); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		// One small request, so that the proxy's part of the connection is made too.
		if _, errno := writeRaw(fd, keepRequest); errno != 0 {
			return fmt.Errorf("send: %w", errno)
		}
		for left := blockSize; left > 0; {
			n, errno := readRaw(fd, l.buf[:left])
			if errno != 0 || n == 0 {
				return fmt.Errorf("receive: connection ended early (%v)", errno)
			}
			left -= n
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("set non-blocking: %w", err)
		}
	}
	return nil
}

// run ends when every stream has moved its bytes, with the first error, or when
// nothing moved for stallAfter.
func (l *bulkLoop) run(ctx context.Context, kind string, n int64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range l.streams {
		s := &l.streams[i]
		switch kind {
		case askDown:
			s.in = n
		case askUp:
			s.in, s.out.left = blockSize, n
		case askBoth:
			s.in, s.out.left = n, n
		}
		if _, errno := writeRaw(s.fd, request(kind, n)); errno != 0 {
			return fmt.Errorf("send: %w", errno)
		}
		s.writing = s.out.left > 0
		if err := l.watch(unix.EPOLL_CTL_ADD, i); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, 64)
	heard := time.Now()
	for left := len(l.streams); left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.EpollWait(l.epfd, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		if n > 0 {
			heard = time.Now()
		} else if time.Since(heard) > stallAfter {
			return errStalled
		}
		for i := range max(n, 0) {
			done, err := l.move(int(events[i].Fd), events[i].Events)
			if err != nil {
				return err
			}
			if done {
				left--
			}
		}
	}
	return nil
}

// watch registers a stream by its index, not its descriptor.
func (l *bulkLoop) watch(op, i int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
	if l.streams[i].writing {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.epfd, op, l.streams[i].fd, &ev); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	return nil
}

// move carries what one stream can carry now; done: it has carried everything.
func (l *bulkLoop) move(i int, events uint32) (done bool, err error) {
	s := &l.streams[i]
	if s.in == 0 && s.out.left == 0 {
		return false, errors.New("bulk: something came after the last byte")
	}
	if events&^unix.EPOLLOUT != 0 {
		n, errno := readRaw(s.fd, l.buf)
		switch {
		case errno != 0 && !again(errno):
			return false, fmt.Errorf("receive: %w", errno)
		case errno == 0 && n == 0:
			return false, fmt.Errorf("receive: connection ended %d bytes early", s.in)
		case errno == 0 && int64(n) > s.in:
			return false, errors.New("receive: more than was asked for")
		}
		s.in -= int64(max(n, 0))
	}
	if s.out.left > 0 && s.out.write(s.fd) {
		return false, errors.New("send: connection broke")
	}
	if want := s.out.left > 0; want != s.writing {
		s.writing = want
		if err := l.watch(unix.EPOLL_CTL_MOD, i); err != nil {
			return false, err
		}
	}
	return s.in == 0 && s.out.left == 0, nil
}
