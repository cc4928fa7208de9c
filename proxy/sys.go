package proxy

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is every system call that the pump makes, so that a fake can drive
// it through schedules that a real kernel shows once a year. An interface
// call costs about 2 ns beside calls of 300 ns and more; the arguments are
// plain numbers and buffers that live as long as their loop, so nothing is
// allocated on the way.
//
// Every call is non-blocking and is made raw: the scheduler of Go is not told,
// which saves about 80 ns a call and is allowed because none of them waits.
type kernel interface {
	// recv reads from a stream socket: recv(2).
	recv(fd int32, b []byte) (int, syscall.Errno)
	// send writes to a stream socket: send(2) with MSG_NOSIGNAL. more: the end
	// of the stream follows at once, so let it share the packet (MSG_MORE).
	send(fd int32, b []byte, more bool) (int, syscall.Errno)
	// sendAll sends each message that has somewhere to go, in order, and notes
	// what came of it. It keeps neither slice.
	sendAll(writes []write, bytes []byte)
	// nodelay sets TCP_NODELAY, see tcp(7).
	nodelay(fd int32)
	// unpace takes the pacing from a connection within this machine.
	unpace(fd int32)
	// splice moves bytes between a socket and a pipe: splice(2). Never with
	// SPLICE_F_MORE: it holds the last bytes back for 200 ms.
	splice(from, to int32, n int) (int, syscall.Errno)
	// openPipe gives an empty pipe; drain reads from it; closePipe ends it.
	openPipe() (pipe, syscall.Errno)
	drain(fd int32, b []byte) (int, syscall.Errno)
	closePipe(p pipe)
	// arm asks epoll for write edges too. It reports the state at once if the
	// socket can be written now, so no edge is lost.
	arm(fd int32, key key)
	// finish ends the sending half: shutdown(2), SHUT_WR.
	finish(fd int32) syscall.Errno
	// unsent counts the bytes that the peer's kernel has not acknowledged:
	// ioctl(2), SIOCOUTQ, see tcp(7).
	unsent(fd int32) int
	// close ends a descriptor. reset ends a TCP connection with RST:
	// SO_LINGER of zero seconds, see socket(7); what is unsent is thrown away.
	close(fd int32)
	reset(fd int32)
}

// pipe is a pipe(2) that bytes pass through on their way from socket to socket.
type pipe struct{ r, w int32 }

// key is what epoll gives back with an event: which record, which side, and
// the record's sequence number, so that an event for a connection that ended
// earlier in the same batch is recognised.
type key struct {
	ref int32 // index<<1 | side, or one of the negative refs of loop.go
	seq int32
}

const (
	// edges is what every relayed socket is watched for. EPOLLPRI is there
	// because a read stops short in front of urgent data.
	edges = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET
	// writeEdge is added the first time that a socket would not take more. Not
	// before: a unix socket reports it each time that its peer reads.
	writeEdge = unix.EPOLLOUT
)

// linux is the kernel that serves one loop.
type linux struct {
	epoll int32
	ring  *ring // nil where there is none
	many  int   // messages from which the ring is used

	broken func(syscall.Errno) // told when the ring is given up; may be nil
}

func (k *linux) recv(fd int32, b []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), e
}

func (k *linux) send(fd int32, b []byte, more bool) (int, syscall.Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	n, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	return int(n), e
}

// manyAtOnce is the number of messages from which the ring costs less. A test may
// change it before it starts a loop.
var manyAtOnce = 2

func (k *linux) sendAll(writes []write, bytes []byte) {
	if k.ring != nil && len(writes) >= k.many {
		switch errno := k.ring.send(writes, bytes); errno {
		case 0:
			return
		case unix.EAGAIN, unix.EBUSY, unix.EINTR, unix.ENOMEM: // passes
		default:
			k.closeRing()
			if k.broken != nil {
				k.broken(errno)
			}
		}
	}
	for i := range writes {
		if w := &writes[i]; w.fd >= 0 && w.sent == undone {
			n, errno := k.send(w.fd, bytes[w.at:w.at+w.size], false)
			if errno != 0 {
				n = -int(errno)
			}
			w.sent = int32(n)
		}
	}
}

func (k *linux) closeRing() {
	if k.ring != nil {
		k.ring.close()
		k.ring = nil
	}
}

func (k *linux) splice(from, to int32, n int) (int, syscall.Errno) {
	m, _, e := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(m), e
}

func (k *linux) nodelay(fd int32) {
	unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

func (k *linux) openPipe() (pipe, syscall.Errno) {
	var p [2]int32
	_, _, e := syscall.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&p)), unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if e == 0 {
		// Refused where the user's quota is used up, see pipe(7): smaller then.
		syscall.RawSyscall(unix.SYS_FCNTL, uintptr(p[1]), unix.F_SETPIPE_SZ, spliceSize)
	}
	return pipe{p[0], p[1]}, e
}

func (k *linux) drain(fd int32, b []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), e
}

func (k *linux) closePipe(p pipe) {
	k.close(p.r)
	k.close(p.w)
}

func (k *linux) arm(fd int32, key key) {
	k.watch(unix.EPOLL_CTL_MOD, fd, edges|writeEdge, key)
}

func (k *linux) finish(fd int32) syscall.Errno {
	_, _, e := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

func (k *linux) unsent(fd int32) int {
	var n int32
	_, _, e := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return 0
	}
	return int(n)
}

// close is never tried again: on Linux the descriptor is gone also after EINTR.
func (k *linux) close(fd int32) {
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

func (k *linux) reset(fd int32) {
	linger := unix.Linger{Onoff: 1, Linger: 0}
	syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	k.close(fd)
}

// watch changes what epoll reports of fd: epoll_ctl(2).
func (k *linux) watch(op int, fd int32, events uint32, key key) syscall.Errno {
	ev := unix.EpollEvent{Events: events, Fd: key.ref, Pad: key.seq}
	_, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(k.epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

// poll takes what is ready and never waits.
func (k *linux) poll(events []unix.EpollEvent) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return int(n), e
}

// wait sleeps until something is ready, at most ms milliseconds, for ever if
// negative. The scheduler is told: a thread that sleeps raw would keep its
// processor from the rest of the program and stop the garbage collector.
func (k *linux) wait(events []unix.EpollEvent, ms int) (int, syscall.Errno) {
	n, _, e := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(ms), 0, 0)
	return int(n), e
}

func accept(fd int32) (int32, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int32(n), e
}

func socket(family int) (int32, syscall.Errno) {
	n, _, e := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int32(n), e
}
