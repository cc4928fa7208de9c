package main

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// backend answers requests: one epoll loop per processor, all of them on every
// listener, and each accepted connection given to the loops in turn.
type backend struct {
	loops []*backendLoop
	next  atomic.Uint32
}

// backendLoop is owned by one thread, except for its epoll descriptor, to which
// the other loops add connections.
type backendLoop struct {
	all       *backend
	epfd      int
	listeners map[int]bool
	conns     []served // by descriptor
	buf       []byte
}

// served is one connection of a loop.
type served struct {
	have    int // bytes of an unfinished request in part
	part    [requestSize]byte
	in      int64 // bytes to take before the next request
	answer  bool  // one block once they are taken
	last    bool  // close once everything is written
	writing bool  // EPOLLOUT is asked for
	out     outgoing
}

var keepRequest = request(askKeep, 0)

// backendMain is the re-executed bench: backend [--tcp ADDRESS] [--unix PATH]
// [--handed] [--while PID]. It ends when the process of that PID has ended.
func backendMain(args []string) error {
	flags := flag.NewFlagSet("backend", flag.ContinueOnError)
	tcp := flags.String("tcp", "", "address to listen on")
	path := flags.String("unix", "", "socket to listen on")
	handed := flags.Bool("handed", false, "take descriptor 3, which is a listening TCP socket")
	while := flags.Int("while", 0, "process to live as long as")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var fds []int
	if *tcp != "" {
		fd, err := listenTCP(*tcp)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	if *path != "" {
		fd, err := listenUnix(*path)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	if *handed {
		const fd = 3 // the first one of sd_listen_fds(3)
		if err := errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)); err != nil {
			return fmt.Errorf("take socket: %w", err)
		}
		unix.CloseOnExec(fd)
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return errors.New("start backend: nothing to listen on")
	}
	b, err := newBackend(fds)
	if err != nil {
		return err
	}
	for _, l := range b.loops {
		go l.run()
	}
	return awaitEnd(*while)
}

// awaitEnd waits for the end of another process (pidfd_open(2)), or with 0 for ever.
func awaitEnd(pid int) error {
	if pid == 0 {
		select {}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func listenTCP(address string) (int, error) {
	sa, err := tcpSockaddr(address)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // accepted sockets inherit it
	return fd, bindListen(fd, sa, address)
}

func listenUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	return fd, bindListen(fd, &unix.SockaddrUnix{Name: path}, path)
}

func bindListen(fd int, sa unix.Sockaddr, name string) error {
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("bind %s: %w", name, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listen on %s: %w", name, err)
	}
	return nil
}

// newBackend makes the loops; it takes over the listening descriptors.
func newBackend(listeners []int) (*backend, error) {
	b := &backend{}
	for range runtime.NumCPU() {
		epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("make epoll: %w", err)
		}
		l := &backendLoop{all: b, epfd: epfd, listeners: map[int]bool{}, buf: make([]byte, bufferSize)}
		for _, fd := range listeners {
			l.listeners[fd] = true
			if err := watch(epfd, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE); err != nil {
				return nil, fmt.Errorf("watch listener: %w", err)
			}
		}
		b.loops = append(b.loops, l)
	}
	return b, nil
}

// run serves until the process ends; nobody waits for it.
func (l *backendLoop) run() {
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(l.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("wait for events: %v", err)) // the epoll descriptor is ours: a bug
		}
		for i := range max(n, 0) {
			fd := int(events[i].Fd)
			if l.listeners[fd] {
				l.accept(fd)
				continue
			}
			l.serve(fd, events[i].Events)
		}
	}
}

// accept takes what waits, a few at a time.
func (l *backendLoop) accept(listener int) {
	for range 16 {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		to := l.all.loops[int(l.all.next.Add(1))%len(l.all.loops)]
		if err := watch(to.epfd, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			closeRaw(fd)
		}
	}
}

func (l *backendLoop) serve(fd int, events uint32) {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]served, 1024)...)
	}
	c := &l.conns[fd]
	ended := false
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		n, errno := readRaw(fd, l.buf)
		switch {
		case errno != 0:
			ended = !again(errno)
		case n == 0:
			ended = true
		default:
			ended = !c.take(l.buf[:n])
		}
	}
	if !ended && c.out.left > 0 {
		ended = c.out.write(fd)
	}
	if ended || c.last && c.out.left == 0 {
		*c = served{}
		closeRaw(fd)
		return
	}
	if want := c.out.left > 0; want != c.writing {
		c.writing = want
		mask := uint32(unix.EPOLLIN)
		if want {
			mask |= unix.EPOLLOUT
		}
		_ = watch(l.epfd, unix.EPOLL_CTL_MOD, fd, mask)
	}
}

// take reads what a client sent; false: it makes no sense.
func (c *served) take(b []byte) bool {
	for len(b) > 0 {
		if c.in > 0 {
			n := min(c.in, int64(len(b)))
			c.in -= n
			b = b[n:]
			if c.in == 0 && c.answer {
				c.answer = false
				c.out.left += blockSize
			}
			continue
		}
		n := copy(c.part[c.have:], b)
		c.have += n
		b = b[n:]
		if c.have < requestSize {
			return true
		}
		c.have = 0
		if !c.begin() {
			return false
		}
	}
	return true
}

// begin starts on the request that is whole now.
func (c *served) begin() bool {
	if c.part == [requestSize]byte(keepRequest) {
		c.out.left += blockSize
		return true
	}
	kind, n, err := parseRequest(c.part[:])
	if err != nil {
		return false
	}
	switch kind {
	case askLast:
		c.out.left += blockSize
		c.last = true
	case askDown:
		c.out.left += n
	case askUp:
		c.in, c.answer = n, true
	case askBoth:
		c.in = n
		c.out.left += n
	}
	return true
}
