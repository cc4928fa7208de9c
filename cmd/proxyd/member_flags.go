package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// O_NONBLOCK belongs to a socket, not to a descriptor (open(2)), so on a member
// of the listeners' groups it is the generation's affair. But systemd sets it to
// what NonBlocking= says each time that it starts proxyd, also on members that
// generations accept from just then. So it is written down as a generation has
// it when it becomes current, and put back when the next proxyd takes over: an
// event loop that shares the socket among processes would hang without it, and a
// program that counts on accept(2) to wait would fail with it. In the moment
// between it is as the unit says, which is why proxyd@.service has it set.

func (s *generationSockets) flagsPath(id uint64) string {
	return filepath.Join(s.genDir(id), "nonblock")
}

// noteFlags writes down whether a generation's member, fd, blocks. It takes no
// lock: a switch must not wait.
func (s *generationSockets) noteFlags(id uint64, fd int) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	text := "no"
	if flags&unix.O_NONBLOCK != 0 {
		text = "yes"
	}
	if err == nil {
		err = os.WriteFile(s.flagsPath(id), []byte(text), 0o600)
	}
	if err != nil {
		s.log.Warn("cannot note whether a generation's socket blocks", "generation", id, "error", err)
	}
}

// restoreFlags puts it back, where it was noted.
func (s *generationSockets) restoreFlags(id uint64, fds ...int) {
	text, err := os.ReadFile(s.flagsPath(id))
	if err != nil {
		return // it never was current
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, string(text) == "yes"); err != nil {
			s.log.Warn("cannot set whether a generation's socket blocks", "generation", id, "error", err)
		}
	}
}
