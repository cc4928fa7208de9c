package proxy

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringSize is how many messages go in one call. It is a power of two.
const ringSize = 256

// ring is an io_uring(7) that a loop gives the messages of a turn to, all in one
// call. Each send(2) of its own ends with a look at who was woken, and often that
// one gets the processor there and then; here they are all written first. Nothing
// waits: each message asks for MSG_DONTWAIT, so io_uring_enter(2) does it at once
// and its result is there when the call returns.
//
// The memory is the kernel's and shared with it: tails and heads are read and
// written by atomics, as io_uring(7) demands.
type ring struct {
	fd             int
	enter          func(n uint32) syscall.Errno // a test's own, to fail
	shared, queued []byte                       // what mmap gave: both rings, and the requests
	sqHead, sqTail *uint32
	cqHead, cqTail *uint32
	requests       []request
	results        []result
}

// request is a struct io_uring_sqe as far as send(2) needs it.
type request struct {
	op      uint8
	flags   uint8
	ioprio  uint16
	fd      int32
	offset  uint64
	address uint64
	size    uint32
	msg     uint32
	user    uint64
	_       [3]uint64
}

// result is a struct io_uring_cqe.
type result struct {
	user  uint64
	n     int32
	flags uint32
}

// ringSetup is a struct io_uring_params.
type ringSetup struct {
	sqEntries, cqEntries, flags, cpu, idle, features, workers uint32
	_                                                         [3]uint32
	sq                                                        struct{ head, tail, mask, entries, flags, dropped, array, _ uint32 }
	_                                                         uint64
	cq                                                        struct{ head, tail, mask, entries, overflow, results, flags, _ uint32 }
	_                                                         uint64
}

const (
	opSend        = 26         // IORING_OP_SEND, Linux 5.6
	needed        = 1 | 1<<5   // IORING_FEAT_SINGLE_MMAP, and IORING_FEAT_FAST_POLL: Linux 5.7
	requestsAt    = 0x10000000 // IORING_OFF_SQES
	enterAndAwait = 1          // IORING_ENTER_GETEVENTS
)

// newRing gives a ring, or an error where the kernel has none, or has one for
// others only: sysctl kernel.io_uring_disabled, seccomp(2), RLIMIT_MEMLOCK.
func newRing() (*ring, error) {
	var s ringSetup
	fd, _, errno := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&s)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &ring{fd: int(fd)}
	r.enter = r.submit
	if s.features&needed != needed {
		r.close()
		return nil, unix.ENOSYS
	}
	size := max(s.sq.array+s.sqEntries*4, s.cq.results+s.cqEntries*uint32(unsafe.Sizeof(result{})))
	var err error
	if r.shared, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		r.queued, err = unix.Mmap(r.fd, requestsAt, int(s.sqEntries)*int(unsafe.Sizeof(request{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	number := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[at])) }
	r.sqHead, r.sqTail = number(s.sq.head), number(s.sq.tail)
	r.cqHead, r.cqTail = number(s.cq.head), number(s.cq.tail)
	r.requests = unsafe.Slice((*request)(unsafe.Pointer(&r.queued[0])), s.sqEntries)
	r.results = unsafe.Slice((*result)(unsafe.Pointer(&r.shared[s.cq.results])), s.cqEntries)
	order := unsafe.Slice(number(s.sq.array), s.sqEntries)
	for i := range order {
		order[i] = uint32(i)
	}
	return r, nil
}

func (r *ring) close() {
	for _, m := range [][]byte{r.shared, r.queued} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	unix.Close(r.fd)
}

// send writes messages to their sockets and notes what came of each. What the
// kernel did not take stays undone, and the error says why. bytes must not be on a
// stack, which may be moved before the kernel has read it.
func (r *ring) send(writes []write, bytes []byte) syscall.Errno {
	for from := 0; from < len(writes); {
		tail, n := *r.sqTail, uint32(0)
		for ; from < len(writes) && int(n) < len(r.requests); from++ {
			w := &writes[from]
			if w.fd < 0 {
				continue
			}
			r.requests[(tail+n)%uint32(len(r.requests))] = request{
				op: opSend, fd: w.fd, msg: unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT, user: uint64(from),
				address: uint64(uintptr(unsafe.Pointer(&bytes[w.at]))), size: uint32(w.size),
			}
			n++
		}
		atomic.StoreUint32(r.sqTail, tail+n)
		errno := r.enter(n)
		taken := atomic.LoadUint32(r.sqHead) - tail
		if errno == 0 && taken < n {
			errno = unix.EAGAIN
		}
		// The kernel looks at the queue only when it is asked to, so what it left
		// can be taken back.
		atomic.StoreUint32(r.sqTail, tail+taken)
		r.collect(writes, taken)
		if errno != 0 {
			return errno
		}
	}
	return 0
}

// submit gives the kernel n requests. It may take some of them and stop.
func (r *ring) submit(n uint32) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
	return errno
}

// collect takes n results.
func (r *ring) collect(writes []write, n uint32) {
	for n > 0 {
		head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
		if head == tail { // cannot be, see ring; but a result must never come late
			syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, enterAndAwait, 0, 0)
			continue
		}
		for ; head != tail; head++ {
			c := r.results[head%uint32(len(r.results))]
			writes[c.user].sent = c.n
			n--
		}
		atomic.StoreUint32(r.cqHead, head)
	}
}
