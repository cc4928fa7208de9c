package main

import (
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend/process"
)

// groupHolder keeps the groups that proxyd has opened itself in a process beside
// it, so that a proxyd that was killed finds them again whatever its generations
// let be done to them (activation.Holder). A holder that has ended is replaced:
// nothing is lost, as long as proxyd runs.
type groupHolder struct {
	path string
	fds  []int // borrowed
	log  hclog.Logger

	mu      sync.Mutex
	holder  *activation.Holder // nil where none runs
	watched map[int]int        // pidfds of generations, by number
	quit    chan struct{}
	ended   sync.WaitGroup
}

const holderName = "holder.sock"

// Pauses between attempts to start a holder.
const (
	holderPause     = time.Second
	holderPauseMost = time.Minute
)

func holderPath(runtimeDir string) string { return filepath.Join(runtimeDir, holderName) }

// keepGroups makes sure that the groups among listeners are held. found is the holder
// of an earlier proxyd, if there is one, and held what it gave. One of other groups
// than today's is left to end. close ends what this starts.
func keepGroups(runtimeDir string, found *activation.Holder, held []int, listeners []activation.Listener, log hclog.Logger) *groupHolder {
	h := &groupHolder{path: holderPath(runtimeDir), log: log, watched: map[int]int{}, quit: make(chan struct{})}
	for _, g := range groupsOf(listeners) {
		if len(g.members) > 1 && g.members[0].Source == activation.SourceProxyd {
			h.fds = append(h.fds, g.fds()...)
		}
	}
	if found != nil && !sameSockets(held, h.fds) {
		if err := found.End(); err != nil {
			log.Warn("cannot end the holder of listeners that are no more", "error", err)
		}
		found = nil
	}
	if len(h.fds) == 0 {
		return h
	}
	h.holder = found
	if found == nil {
		h.start()
	}
	h.ended.Add(1)
	go h.keep()
	return h
}

// sameSockets compares two lists of descriptors by the sockets behind them.
func sameSockets(a, b []int) bool {
	cookies := func(fds []int) (list []uint64) {
		for _, fd := range fds {
			c, _ := activation.Listener{FD: fd}.Cookie() // 0 is none
			list = append(list, c)
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(cookies(a), cookies(b))
}

// start starts a holder and tells it what to watch. Without one generations hold
// the groups alone, which is enough where they may be traced.
func (h *groupHolder) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	holder, err := activation.StartHolder(h.path, h.fds, process.Beside)
	if err != nil {
		h.log.Warn("nobody but the generations holds the listeners while no proxyd runs", "error", err)
		return
	}
	h.holder = holder
	for pid, pidfd := range h.watched {
		h.tell(pid, pidfd)
	}
}

// keep replaces a holder that has ended. It ends with close, which waits for it.
func (h *groupHolder) keep() {
	defer h.ended.Done()
	for pause := holderPause; ; pause = min(2*pause, holderPauseMost) {
		h.mu.Lock()
		holder := h.holder
		h.mu.Unlock()
		if holder != nil {
			select {
			case <-holder.Gone():
			case <-h.quit:
				return
			}
			h.mu.Lock()
			h.holder = nil
			h.mu.Unlock()
			h.log.Warn("the holder of the listeners has ended, starting another")
			if err := holder.End(); err != nil { // it is reaped
				h.log.Warn("cannot clear up after a holder", "error", err)
			}
		}
		select {
		case <-time.After(pause):
		case <-h.quit:
			return
		}
		h.start()
	}
}

// watch makes the holder stay as long as a generation's process does.
func (h *groupHolder) watch(id process.Identity) {
	if h == nil || len(h.fds) == 0 {
		return
	}
	pidfd, err := id.Open()
	if err != nil {
		return // it has ended
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.prune()
	if old, known := h.watched[id.PID]; known {
		unix.Close(old)
	}
	h.watched[id.PID] = pidfd
	if h.holder != nil {
		h.tell(id.PID, pidfd)
	}
}

func (h *groupHolder) tell(pid, pidfd int) {
	if err := h.holder.Watch(pid, pidfd); err != nil {
		h.log.Warn("the holder of the listeners will not wait for a generation", "error", err)
	}
}

// prune closes the pidfds of processes that have ended: they are readable then.
func (h *groupHolder) prune() {
	for pid, fd := range h.watched {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err == nil && n > 0 {
			unix.Close(fd)
			delete(h.watched, pid)
		}
	}
}

// close ends the holder, unless generations run on.
func (h *groupHolder) close() error {
	if h == nil {
		return nil
	}
	close(h.quit)
	h.ended.Wait()
	h.prune()
	left := len(h.watched)
	for _, fd := range h.watched {
		unix.Close(fd)
	}
	clear(h.watched)
	switch {
	case h.holder == nil:
		return nil
	case left > 0:
		return h.holder.Close()
	}
	return h.holder.End()
}
