package proxy

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// setLimit divides the descriptors: what is open, the reserve, pipes, and two
// for each connection. It gives the pipes that a loop may lend.
func (p *Proxy) setLimit(cfg Config) (pipes int, err error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("read descriptor limit: %w", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count open descriptors: %w", err)
	}
	reserve := cfg.Reserve
	if reserve <= 0 {
		reserve = 64
	}
	all := int(min(lim.Cur, 1<<30)) - len(open) - reserve
	pipes = min(16, max(1, all/16/len(p.loops)/2))
	room := (all - len(p.loops)*2*(pipes+1)) / 2
	if room < 1 {
		return 0, fmt.Errorf("limit %d, %d open, %d reserved: %w", lim.Cur, len(open), reserve, ErrLimits)
	}
	p.limit = int64(room)
	if n := cfg.MaxConnections; n > 0 && n < room {
		p.limit = int64(n)
	}
	return pipes, nil
}

// empty is what Empty gives.
type empty struct {
	reached chan struct{}
	once    sync.Once
}

// Empty gives a channel that is closed once no client is left: none is served,
// and none that was accepted waits for its backend. It is for the end, after a
// Seal, for otherwise the next may be accepted already. Where there never was a
// route there will be none: nobody serves those who were taken out of a queue.
func (p *Proxy) Empty() <-chan struct{} {
	e := &empty{reached: make(chan struct{})}
	if !p.empty.CompareAndSwap(nil, e) {
		e = p.empty.Load()
	}
	if p.live.Load() == 0 || !p.served.Load() {
		p.emptied()
	}
	return e.reached
}

func (p *Proxy) emptied() {
	if e := p.empty.Load(); e != nil {
		e.once.Do(func() { close(e.reached) })
	}
}

// enter takes one of the places for connections; false: none is free.
func (p *Proxy) enter() bool {
	if p.live.Add(1) <= p.limit {
		return true
	}
	p.live.Add(-1)
	return false
}

// leave gives a place back, and tells the loops that stopped for want of one.
func (p *Proxy) leave() {
	if p.live.Add(-1) == 0 {
		p.emptied()
	}
	if p.crowded.Load() {
		p.uncrowd()
	}
}

func (p *Proxy) uncrowd() {
	if !p.crowded.CompareAndSwap(true, false) {
		return
	}
	for _, l := range p.loops {
		if l.full.CompareAndSwap(true, false) {
			l.post(command{what: look})
		}
	}
}

// lighter gives a loop that has clearly fewer connections than l, or nil. The
// kernel wakes the same loop first as long as it sleeps, so long-lived
// connections would pile up there.
func (p *Proxy) lighter(l *loop) *loop {
	mine := l.load.Load()
	for _, o := range p.loops {
		if o == l {
			continue
		}
		if its := o.load.Load(); mine > its+8+its/4 {
			return o
		}
	}
	return nil
}
