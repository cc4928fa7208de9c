package proxy

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// holders remembers, for one look, which sockets the processes of each
// generation have open, by inode: /proc/PID/fd, proc_pid_fd(5). A process may
// have given a socket to another, so all of a generation's count.
type holders map[*tally]held

type held struct {
	inodes map[uint32]bool
	err    error
}

// of gives the sockets that the processes of a generation have.
func (h holders) of(t *tally) (map[uint32]bool, error) {
	if got, ok := h[t]; ok {
		return got.inodes, got.err
	}
	got := held{inodes: map[uint32]bool{}}
	if t.processes != nil {
		var pids []int
		pids, got.err = t.processes()
		for _, pid := range pids {
			if err := socketsOf(pid, got.inodes); err != nil && got.err == nil {
				got.err = err
			}
		}
	}
	h[t] = got
	return got.inodes, got.err
}

// others gives the sockets of all generations but one, and of this process.
func (h holders) others(t *tally, all []*tally) ([]map[uint32]bool, error) {
	own, ok := h[nil]
	if !ok {
		own = held{inodes: map[uint32]bool{}}
		own.err = socketsOf(os.Getpid(), own.inodes)
		h[nil] = own
	}
	list, err := []map[uint32]bool{own.inodes}, own.err
	for _, o := range all {
		if o == t {
			continue
		}
		inodes, failed := h.of(o)
		if failed != nil {
			err = failed
		}
		list = append(list, inodes)
	}
	return list, err
}

// stranger says whether a process that is none of the generation's has a
// socket. Not to find it says nothing: it may be on its way between two, and
// not everybody can be looked at.
func (h holders) stranger(t *tally, inode uint32) bool {
	mine := map[int]bool{}
	if t.processes != nil {
		pids, err := t.processes()
		if err != nil {
			return false
		}
		for _, pid := range pids {
			mine[pid] = true
		}
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || mine[pid] {
			continue
		}
		inodes := map[uint32]bool{}
		if err := socketsOf(pid, inodes); err == nil && inodes[inode] {
			return true
		}
	}
	return false
}

// socketsOf adds the sockets that a process has open. One that has ended has
// none.
func socketsOf(pid int, into map[uint32]bool) error {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	at, buf := int(dir.Fd()), make([]byte, 64)
	for _, name := range names {
		n, err := unix.Readlinkat(at, name, buf)
		if err != nil {
			continue // closed since
		}
		if inode, ok := socketInode(buf[:n]); ok {
			into[inode] = true
		}
	}
	return nil
}

// socketInode reads "socket:[123]".
func socketInode(link []byte) (uint32, bool) {
	const before, after = "socket:[", "]"
	if len(link) <= len(before)+len(after) || string(link[:len(before)]) != before {
		return 0, false
	}
	n, err := strconv.ParseUint(string(link[len(before):len(link)-len(after)]), 10, 32)
	return uint32(n), err == nil
}
