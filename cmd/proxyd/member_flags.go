package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// O_NONBLOCK belongs to a socket, not to a descriptor (open(2)), so on a member
// of the listeners' groups it is the generation's affair. But systemd sets it to
// what NonBlocking= says each time that it starts proxyd, also on members that
// generations accept from just then. So it is written down as a generation has
// it when it is ready, where that tells (see fit.go), and when it becomes current, and put back when the next proxyd
// takes over. In the moment between it is as the unit says: see fit.go.

func (s *generationSockets) flagsPath(id uint64) string {
	return filepath.Join(s.genDir(id), "nonblock")
}

const (
	flagSet   = "yes"
	flagUnset = "no"
)

// noteFlags writes down whether a generation's member, fd, blocks.
func (s *generationSockets) noteFlags(id uint64, fd int) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		s.log.Warn("cannot find out whether a generation's socket blocks", "generation", id, "error", err)
		return
	}
	text := flagUnset
	if flags&unix.O_NONBLOCK != 0 {
		text = flagSet
	}
	s.flags.put(s.flagsPath(id), text)
}

// restoreFlags puts it back, where it was noted.
func (s *generationSockets) restoreFlags(id uint64, fds ...int) {
	text, err := os.ReadFile(s.flagsPath(id))
	if err != nil || string(text) != flagSet && string(text) != flagUnset {
		return // it never was ready, or the note is damaged
	}
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, string(text) == flagSet); err != nil {
			s.log.Warn("cannot set whether a generation's socket blocks", "generation", id, "error", err)
		}
	}
}

// flagNotes writes notes beside whoever has them: the supervisor, who switches,
// must not wait for a disk. Each is written whole or not at all.
type flagNotes struct {
	write func(path string, text []byte) error
	log   hclog.Logger

	mu      sync.Mutex
	wanted  map[string]string // by path: not written yet
	written map[string]string
	busy    chan struct{} // nil: nothing is being written; closed once nothing is any more
}

func newFlagNotes(log hclog.Logger) *flagNotes {
	return &flagNotes{
		log: log, wanted: map[string]string{}, written: map[string]string{},
		write: func(path string, text []byte) error {
			return renameio.WriteFile(path, text, 0o600, renameio.WithTempDir(filepath.Dir(path)))
		},
	}
}

// put has a note written soon, in place of an earlier one that was not yet.
func (n *flagNotes) put(path, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted[path] = text; n.busy == nil {
		n.busy = make(chan struct{})
		go n.writeAll()
	}
}

// writeAll ends when no note is left; flush waits for it, for a while.
func (n *flagNotes) writeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.wanted) > 0 {
		for path, text := range n.wanted {
			delete(n.wanted, path)
			if n.written[path] == text {
				continue
			}
			n.mu.Unlock()
			err := n.write(path, []byte(text))
			n.mu.Lock()
			delete(n.written, path)
			if err == nil {
				n.written[path] = text
			} else if !errors.Is(err, fs.ErrNotExist) { // the generation has gone, with its directory
				n.log.Warn("cannot note whether a generation's socket blocks", "note", path, "error", err)
			}
		}
	}
	close(n.busy)
	n.busy = nil
}

// forget drops what is known of a note that is removed.
func (n *flagNotes) forget(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.wanted, path)
	delete(n.written, path)
}

// flushTime is how long flush waits for a disk that does not answer.
const flushTime = time.Second

// flush waits until all notes are written.
func (n *flagNotes) flush() {
	n.mu.Lock()
	busy := n.busy
	n.mu.Unlock()
	if busy == nil {
		return
	}
	late := time.NewTimer(flushTime)
	defer late.Stop()
	select {
	case <-busy:
	case <-late.C:
	}
}
