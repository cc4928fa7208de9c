package proxy

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flow writes n bytes that repeat nowhere: a block of noise with its number in
// it. It and swallow make their system calls raw, as the race detector would
// look at each byte of 1 GiB otherwise.
func flow(c duplex, n int) string {
	block := pattern(7, blockBytes)
	for number := uint64(1); n > 0; number++ {
		binary.BigEndian.PutUint64(block, number)
		part := block[:min(n, len(block))]
		n -= len(part)
		for len(part) > 0 {
			m, err := rawCall(c, true, part)
			if err != nil {
				return "write: " + ending(err)
			}
			part = part[m:]
		}
	}
	return "written"
}

// swallow reads n bytes and tells what came.
func swallow(c duplex, n int) string {
	sum, buf, left := crc32.NewIEEE(), make([]byte, 256<<10), n
	for left > 0 {
		m, err := rawCall(c, false, buf[:min(left, len(buf))])
		if m == 0 && err == nil {
			err = io.EOF
		}
		if err != nil {
			return fmt.Sprintf("%d of %d bytes %08x, %s", n-left, n, sum.Sum32(), ending(err))
		}
		sum.Write(buf[:m])
		left -= m
	}
	return fmt.Sprintf("%d bytes %08x", n, sum.Sum32())
}

func rawCall(c duplex, write bool, b []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	call, wait := uintptr(unix.SYS_RECVFROM), raw.Read
	if write {
		call, wait = unix.SYS_SENDTO, raw.Write
	}
	waitErr := wait(func(fd uintptr) bool {
		for {
			m, _, e := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
			switch e {
			case 0:
				n = int(m)
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				return false
			default:
				err = os.NewSyscallError("call", e)
			}
			return true
		}
	})
	if err == nil {
		err = waitErr
	}
	return n, err
}
