package proxy

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Refs of events that belong to no connection; a listener is -2-its index.
const wakeRef = -1

// loop serves its share of the connections in one goroutine. Everything in it
// belongs to that goroutine, but for the atomics and what follows mu.
type loop struct {
	pump
	os        *linux
	proxy     *Proxy
	index     int
	events    []unix.EpollEvent
	start     time.Time
	cells     []cell
	listening uint64                                      // listeners that are watched
	burst     []int                                       // accepts a wake, by listener
	take      func(listener int32) (int32, syscall.Errno) // accept; a test's own, to fail
	backoff   int64                                       // ns; 0: accepting works
	resting   bool                                        // accepting failed, waits for its timer
	unusable  uint64                                      // listeners that fail, until the same timer
	head      int32                                       // connecting, oldest first
	tail      int32
	swept     int64
	dialled   map[int32]netip.AddrPort // local ends of connections to own addresses, see astray.go
	strayed   map[int32]uint64         // clients that are such, and Proxy.proven when they came

	turns atomic.Uint64
	load  atomic.Int64 // connections, for the others to compare
	full  atomic.Bool  // stopped accepting at the limit

	wake     int32 // eventfd, never read: it is edge-triggered
	mu       sync.Mutex
	posted   []command
	over     bool // takes no more commands
	finished chan struct{}
}

// openRing is a test's own, to count or to fail.
var openRing = newRing

func newLoop(p *Proxy, index int) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, err
	}
	os := &linux{epoll: int32(ep), many: manyAtOnce}
	l := &loop{
		pump: newPump(os), os: os, proxy: p, index: index, wake: int32(wake),
		events: make([]unix.EpollEvent, 256), start: time.Now(),
		head: -1, tail: -1, finished: make(chan struct{}),
		burst: make([]int, len(p.listeners)), take: accept,
	}
	l.pump.ended, l.pump.settled = l.leave, l.count
	if r, err := openRing(); err == nil {
		os.ring = r
	} else if index == 0 {
		p.log.Info("no io_uring, so each message is written by a call of its own", "error", err)
	}
	os.broken = func(errno syscall.Errno) {
		p.log.Warn("io_uring failed, so each message is written by a call of its own from now on", "loop", index, "error", errno)
	}
	if errno := os.watch(unix.EPOLL_CTL_ADD, l.wake, unix.EPOLLIN|unix.EPOLLET, key{ref: wakeRef}); errno != 0 {
		os.closeRing()
		unix.Close(wake)
		unix.Close(ep)
		return nil, errno
	}
	return l, nil
}

// slice is how long a loop runs before it yields to other goroutines, in ns.
// It is less than the 10 ms after which the runtime's monitor would force it
// to, with signals, and would then look every 20 µs whether it has to again:
// that took a tenth of the proxy's CPU. For the same reason the goroutine is
// not locked to its thread: yielding is cheap only to one that may move, and
// nothing in a loop belongs to a thread.
const slice = int64(5 * time.Millisecond)

// run is the goroutine of a loop. It ends on the command stop; Proxy.Close
// waits for it.
func (l *loop) run() {
	defer close(l.finished)
	yielded := int64(0)
	for !l.turn() {
		if l.now-yielded > slice {
			yielded = l.now
			runtime.Gosched()
		}
	}
}

// turn is one round: everything that is ready, once. True: the loop has ended.
func (l *loop) turn() bool {
	n, errno := l.os.poll(l.events)
	if n <= 0 || errno != 0 {
		if n, errno = l.sleep(); errno != 0 {
			n = 0
		}
	}
	l.turns.Add(1)
	l.clock()
	called := false
	var ready uint64 // listeners
	for i := range l.events[:n] {
		ev := &l.events[i]
		switch {
		case ev.Fd >= 0:
			if c := l.slab.find(ev.Fd>>1, ev.Pad); c != nil {
				l.event(c, int(ev.Fd&1), ev.Events)
			}
		case ev.Fd == wakeRef:
			called = true
		default:
			ready |= 1 << uint(-2-ev.Fd)
		}
	}
	l.continued()
	l.expire()
	// Listeners last, so that what is being served goes before what is new.
	for i := 0; ready != 0; i, ready = i+1, ready>>1 {
		if ready&1 != 0 {
			l.accept(i)
		}
	}
	l.deliver()
	if !called {
		return false
	}
	over := l.obey()
	l.deliver() // what came from connections that were handed over
	return over
}

// sleep waits for events, not longer than the next thing that is due.
func (l *loop) sleep() (int, unix.Errno) {
	if len(l.again) > 0 {
		return 0, 0
	}
	until := int64(-1)
	if len(l.timers) > 0 {
		until = l.timers[0].at
	}
	if l.head >= 0 {
		if due := l.slab.at(l.head).due; until < 0 || due < until {
			until = due
		}
	}
	if s := l.proxy.sweep; s > 0 && l.slab.live > 0 {
		if due := l.swept + s; until < 0 || due < until {
			until = due
		}
	}
	ms := -1
	if until >= 0 {
		left := until - int64(time.Since(l.start))
		ms = max(0, int((left+int64(time.Millisecond)-1)/int64(time.Millisecond)))
	}
	return l.os.wait(l.events, ms)
}

func (l *loop) clock() {
	l.now = int64(time.Since(l.start))
	l.tick = uint32(l.now / int64(time.Millisecond))
}

// event takes what epoll says of one side of a connection.
func (l *loop) event(c *conn, at int, events uint32) {
	switch {
	case c.state == relaying:
		l.happened(c, at, events)
		l.count(c)
	case c.state == connecting && at == backend:
		l.connected(c, events)
	default:
		c.side[at].note(events)
		if c.state == waiting && events&unix.EPOLLERR != 0 {
			l.abort(c) // the client left before anything could serve it
		}
		if c.state == hearing {
			l.hear(c)
		}
	}
}

// continued gives another turn to those who had more to do.
func (l *loop) continued() {
	if len(l.again) == 0 {
		return
	}
	n := len(l.again)
	for i := 0; i < n; i++ {
		k := l.again[i]
		if c := l.slab.find(k.ref>>1, k.seq); c != nil {
			c.queued = false
			if c.state == relaying {
				l.proceed(c)
				l.count(c)
			}
		}
	}
	l.again = l.again[:copy(l.again, l.again[n:])]
}

// expire does what is due.
func (l *loop) expire() {
	for {
		t, ok := l.timers.due(l.now)
		if !ok {
			break
		}
		if t.what == acceptAgain {
			l.resting, l.unusable = false, 0
			l.listen()
			continue
		}
		c := l.slab.find(t.key.ref>>1, t.key.seq)
		if c == nil {
			continue
		}
		switch t.what {
		case dialAgain:
			if c.state == waiting {
				l.dial(c)
			}
		case pollUnsent:
			l.pollAgain(c, int(t.key.ref&1))
		case hearAgain:
			if c.state == hearing {
				l.hear(c)
			}
		case hearNoMore:
			if c.state == hearing {
				l.abort(c)
			}
		case moveAgain:
			l.proceed(c)
			l.count(c)
		}
	}
	for l.head >= 0 && l.slab.at(l.head).due <= l.now {
		l.unreached(l.slab.at(l.head), unix.ETIMEDOUT)
	}
	if s := l.proxy.sweep; s > 0 && l.now >= l.swept+s {
		l.swept = l.now
		l.slab.all(l.endIdle)
	}
}

// endIdle resets a connection that showed no activity for too long. A reset
// and not an end of stream: nobody ended it, so nobody may take it for whole.
func (l *loop) endIdle(c *conn) {
	if c.state != relaying {
		return
	}
	quiet := time.Duration(l.tick-c.active) * time.Millisecond
	limit := l.proxy.idle
	if half := l.proxy.halfClose; half > 0 && (limit == 0 || half < limit) {
		if c.side[client].is(ended) || c.side[backend].is(ended) {
			limit = half
		}
	}
	if limit > 0 && quiet >= limit {
		l.abort(c)
	}
}

// close cuts what is left and gives the loop's descriptors back.
func (l *loop) close() {
	l.mu.Lock()
	l.over = true
	left := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, c := range left {
		if c.what == adopt {
			l.os.reset(c.fd)
			l.proxy.leave()
		}
		if c.done != nil {
			c.done.Done()
		}
	}
	l.slab.all(l.abort)
	l.store.empty()
	l.os.closeRing()
	unix.Close(int(l.os.epoll))
}
