package main

import (
	"golang.org/x/sys/unix"
)

// O_NONBLOCK is a socket's, whoever has it (open(2)), and systemd sets it as
// NonBlocking= says on each socket of the .socket unit each time that it starts
// proxyd (flags_fds in its src/core/execute.c), also on members that generations
// accept from just then. Without it, an event loop that is woken for a client whom
// another process was faster to take would stay in accept(2) with all that it serves,
// and nothing wakes it: so the shipped units set it. With it, a program that counts on
// accept(2) to wait is told EAGAIN, and most take that for an error and end. A call
// that waits already is left alone (inet_csk_accept in net/ipv4), but a loaded server
// begins one after each client, and proxyd can put the flag back only once it runs.
//
// So such a program is kept off those sockets. What it is shows when it is ready: by
// then one that does not count on accept(2) to wait has set O_NONBLOCK on the sockets
// that it was handed, for it may not wait there. One that has not is started once
// more, before it gets a client, on sockets of its own, which systemd keeps for
// proxyd and leaves as they are; and the next generations begin there. Where one of
// these does set it, it moves to the direct path as others that could not be there.
//
// backend.path = "direct" leaves it where it is. So does a readiness check by a
// command: that may pass before the program has touched its sockets, so they tell
// nothing then.

// misfit tells why a generation that is ready should have other sockets than it was
// handed; empty: they are right.
func (s *generationSockets) misfit(id uint64, config *Config) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[id]
	if k == nil || len(k.handed) == 0 || config.Ready.Check == "command" {
		return "" // a command may pass before the program has touched its sockets
	}
	blocks := k.blocks()
	if k.member != 0 {
		s.noteFlags(id, k.handed[0].FD)
	}
	switch {
	case !s.direct.learn(id, blocks, config) || k.member == 0:
		return ""
	case config.Backend.Path == pathDirect:
		s.log.Warn("it counts on accept(2) to wait, and may fail each time that proxyd is started, for systemd changes its sockets then",
			"generation", id, "hint", `backend.path = "auto" serves it by the relay`)
		return ""
	}
	k.misfit = true
	return reasonBlocks
}

// blocks tells whether a call that waits is what a program makes on its sockets.
func (k *keptSockets) blocks() bool {
	for _, l := range k.handed {
		if flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK == 0 {
			return true
		}
	}
	return false
}

// learn takes in whether the program of a generation counts on accept(2) to wait,
// and tells whether it should not have a member then.
func (p *directPath) learn(id uint64, blocks bool, config *Config) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reset || p.direct == nil || config.BindsItself() {
		return false
	}
	p.blocks = blocks
	if now := p.reasons[id]; now == reasonBlocks || now == reasonBlocked {
		p.reasons[id] = reasonBlocks
		if !blocks {
			p.reasons[id] = reasonBlocked
		}
	}
	return blocks
}

// keepsOff tells whether the next generation is not lent a member, for what the last
// one was.
func (p *directPath) keepsOff(config *Config) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reset && p.blocks && config.Backend.Path != pathDirect
}
