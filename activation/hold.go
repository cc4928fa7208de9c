package activation

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// mostOwners is how many may be connected to a holder at once: the proxyd that
// runs, one that ends, one that begins.
const mostOwners = 8

// keeper is what runs in the holder's process.
type keeper struct {
	socket int   // on which proxyd connects
	held   []int // the sockets
	owners []int // connections
	lives  map[int]int
	over   bool
}

// HoldIfAsked must be called at the beginning of main. In a process that
// StartHolder has started it holds the sockets and does not return; in any other
// it does nothing.
func HoldIfAsked() {
	if len(os.Args) != 3 || os.Args[0] != holderName {
		return
	}
	n, err := strconv.Atoi(os.Args[1])
	if err != nil || n < 0 || n > mostHeld {
		return
	}
	// What ends a service's processes ends its generations too, and then this one
	// ends by itself; the terminal's signals are proxyd's affair.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	_ = os.Chdir("/") // no file system is to be kept busy
	// Where its path is lost it is found by its descriptors, which Yama would not
	// let a later proxyd take (PR_SET_PTRACER with PR_SET_PTRACER_ANY, prctl(2); no Yama, no such call).
	_ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0)
	k := &keeper{socket: 3, lives: map[int]int{}}
	for i := range n {
		k.held = append(k.held, 4+i)
	}
	k.run()
	os.Exit(0)
}

// run ends when nobody has a use for what is held.
func (k *keeper) run() {
	_ = unix.SetNonblock(k.socket, true)
	for served := false; ; {
		polled := []unix.PollFd{{Fd: int32(k.socket), Events: unix.POLLIN}}
		for _, fd := range k.owners {
			polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		for _, fd := range k.lives {
			polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		k.admit()
		served = served || len(k.owners) > 0
		for _, fd := range append([]int(nil), k.owners...) {
			k.hear(fd)
		}
		k.bury()
		if k.over || served && len(k.owners) == 0 && len(k.lives) == 0 {
			break
		}
	}
	// The sockets first: who sees the connections end may listen in their place.
	closeFDs(k.held)
	unix.Close(k.socket)
	closeFDs(k.owners)
}

// admit takes new connections of our own user, or of root.
func (k *keeper) admit() {
	for {
		fd, _, err := unix.Accept4(k.socket, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || peer.Uid != 0 && int(peer.Uid) != os.Geteuid() || len(k.owners) >= mostOwners {
			unix.Close(fd)
			continue
		}
		k.owners = append(k.owners, fd)
	}
}

// hear does what is asked on a connection, until it has nothing more or ends.
func (k *keeper) hear(fd int) {
	var b [16]byte
	oob := make([]byte, unix.CmsgSpace(4*mostHeld))
	for !k.over {
		n, oobn, _, _, err := unix.Recvmsg(fd, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		fds, _ := rights(oob[:max(oobn, 0)])
		switch {
		case err != nil || n == 0:
			k.drop(fd)
			closeFDs(fds)
			return
		case b[0] == askSockets:
			if unix.Sendmsg(fd, []byte{askSockets}, unix.UnixRights(k.held...), nil, unix.MSG_NOSIGNAL) != nil {
				k.drop(fd)
				closeFDs(fds)
				return
			}
		case b[0] == askWatch && n == 5 && len(fds) == 1:
			pid := int(binary.LittleEndian.Uint32(b[1:]))
			if old, known := k.lives[pid]; known {
				unix.Close(old) // the same process, or one that has ended
			}
			k.lives[pid] = fds[0]
			fds = nil
		case b[0] == askEnd:
			if k.bury(); len(k.lives) > 0 {
				k.drop(fd)
				closeFDs(fds)
				return
			}
			k.over = true
		}
		closeFDs(fds)
	}
}

func (k *keeper) drop(fd int) {
	for i, o := range k.owners {
		if o == fd {
			k.owners = append(k.owners[:i], k.owners[i+1:]...)
			unix.Close(fd)
			return
		}
	}
}

// bury forgets the processes that have ended: their pidfds are readable
// (pidfd_open(2)).
func (k *keeper) bury() {
	for pid, fd := range k.lives {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err == nil && n > 0 {
			unix.Close(fd)
			delete(k.lives, pid)
		}
	}
}
