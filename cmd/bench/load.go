package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// load is the client side: connections to one address, divided over epoll loops.
// open, run and close are called one after the other, never at once.
type load struct {
	loops []*loadLoop
	left  atomic.Int64 // requests that nobody has begun yet
	stop  atomic.Bool
}

// job is what one run does.
type job struct {
	requests int64
	inFlight int // requests outstanding at once
	perConn  int // a connection is closed after so many requests; 0: never

	// dials makes every request open a connection that then stays; each loop
	// makes its share.
	dials bool

	// rate makes it an open loop: requests are due so many a second and count
	// from then, whether or not earlier ones were answered.
	rate float64
}

// outcome is what a run saw.
type outcome struct {
	took     time.Duration
	requests int64 // answered
	failures failures
	samples  []sample // one for each answered request, in no order
}

// sample is one request: when it was due, in nanoseconds from the run's start,
// and how long its answer took.
type sample struct{ at, took int64 }

// failures counts requests that were not answered, by reason.
type failures map[string]int

func (f failures) total() int {
	sum := 0
	for _, n := range f {
		sum += n
	}
	return sum
}

func (f failures) add(g failures) {
	for reason, n := range g {
		f[reason] += n
	}
}

// stallAfter is how long nothing may happen before what is outstanding counts as
// failed.
const stallAfter = 5 * time.Second

// newLoad makes loops for connections to address; close ends it.
func newLoad(address string) (*load, error) {
	sa, err := tcpSockaddr(address)
	if err != nil {
		return nil, err
	}
	ld := &load{}
	for range runtime.NumCPU() {
		own := *sa // connect(2)'s wrapper writes into it
		l := &loadLoop{load: ld, address: &own, buf: make([]byte, bufferSize), epfd: -1, timer: -1}
		ld.loops = append(ld.loops, l)
		if err := l.prepare(); err != nil {
			ld.close()
			return nil, err
		}
	}
	return ld, nil
}

// close resets nothing: every connection ends with an ordinary close.
func (ld *load) close() {
	for _, l := range ld.loops {
		l.close()
	}
}

// openAtOnce is how many connections open has under way: few enough for the
// shortest listener queue among the peers (nginx: 511).
const openAtOnce = 64

// open makes n connections, each of which has carried one request when it
// returns, so that no proxy can put off its part.
func (ld *load) open(ctx context.Context, n int) error {
	o, err := ld.run(ctx, job{requests: int64(n), inFlight: min(n, openAtOnce), dials: true})
	if err != nil {
		return err
	}
	if f := o.failures.total(); f > 0 {
		return fmt.Errorf("open %d connections: %d failed: %v", n, f, o.failures)
	}
	return nil
}

// setAside takes n of the open connections out of use; they stay open.
func (ld *load) setAside(n int) {
	for i, l := range ld.loops {
		l.ring.drop(share(n, i, len(ld.loops)))
	}
}

// share divides n among the loops; the first ones get what is left over.
func share(n, i, of int) int {
	s := n / of
	if i < n%of {
		s++
	}
	return s
}

// errStalled says that nothing was answered for stallAfter.
var errStalled = errors.New("nothing was answered for too long")

// run carries out one job on the open connections (perConn 0) or on ones of its
// own. The loops run on threads of their own, which it waits for.
func (ld *load) run(ctx context.Context, j job) (outcome, error) {
	ld.left.Store(j.requests)
	ld.stop.Store(false)
	stopWatching := context.AfterFunc(ctx, func() { ld.stop.Store(true) })
	defer stopWatching()
	start := time.Now()
	var wg sync.WaitGroup
	for i, l := range ld.loops {
		mine := share(j.inFlight, i, len(ld.loops))
		if mine == 0 {
			continue
		}
		l.begin(j, mine, start)
		l.left = &ld.left
		if j.dials {
			l.left = new(atomic.Int64)
			l.left.Store(int64(share(int(j.requests), i, len(ld.loops))))
		}
		wg.Go(l.run)
	}
	wg.Wait()
	o := outcome{took: time.Since(start), failures: failures{}}
	var errs []error
	for i, l := range ld.loops {
		if share(j.inFlight, i, len(ld.loops)) == 0 {
			continue
		}
		o.samples = append(o.samples, l.samples...)
		o.failures.add(l.failures)
		errs = append(errs, l.err)
	}
	o.requests = int64(len(o.samples))
	errs = append(errs, ctx.Err())
	return o, errors.Join(errs...)
}

// loadConn is one connection; a slot of a loop's table by descriptor.
type loadConn struct {
	open    bool
	pending bool  // a request is under way
	unsent  bool  // and waits for the connection to be made
	last    bool  // and the backend closes after its response
	start   int64 // when it was due
	left    int   // bytes of its response that are missing
	uses    int   // requests so far
}

// loadLoop is used by one thread at a time: the one that runs it, or the one
// that calls load's methods between runs.
type loadLoop struct {
	load    *load
	address *unix.SockaddrInet4
	epfd    int
	timer   int
	buf     []byte
	conns   []loadConn // by descriptor
	ring    ring       // idle connections

	job      job
	left     *atomic.Int64 // requests that may still be begun
	base     time.Time
	busy     int // requests under way
	most     int // and how many there may be
	samples  []sample
	failures failures
	err      error
	due      schedule
}

func (l *loadLoop) prepare() (err error) {
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	return watch(l.epfd, unix.EPOLL_CTL_ADD, l.timer, unix.EPOLLIN)
}

func (l *loadLoop) close() {
	for fd := range l.conns {
		if l.conns[fd].open {
			closeRaw(fd)
		}
	}
	for _, fd := range []int{l.epfd, l.timer} {
		if fd >= 0 {
			closeRaw(fd)
		}
	}
	l.conns, l.epfd, l.timer = nil, -1, -1
}

func (l *loadLoop) begin(j job, inFlight int, start time.Time) {
	l.job, l.most, l.base = j, inFlight, start
	l.busy, l.err, l.failures = 0, nil, failures{}
	l.due = newSchedule(j.rate * float64(inFlight) / float64(j.inFlight))
	if int64(cap(l.samples)) < j.requests {
		l.samples = make([]sample, 0, j.requests)
	}
	l.samples = l.samples[:0]
}

func (l *loadLoop) now() int64 { return int64(time.Since(l.base)) }

// run ends when all requests are begun by somebody and its own are answered, when
// it is stopped, or when nothing happens any more.
func (l *loadLoop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 256)
	l.issueDue()
	heard := l.now()
	for l.busy > 0 || l.due.on {
		n, err := unix.EpollWait(l.epfd, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.err = fmt.Errorf("wait for events: %w", err)
			return
		}
		if l.load.stop.Load() {
			return
		}
		if n <= 0 {
			if l.busy > 0 && l.now()-heard > int64(stallAfter) {
				l.failures["no answer"] += l.busy
				l.err = errStalled
				return
			}
			continue
		}
		heard = l.now()
		for i := range n {
			if fd := int(events[i].Fd); fd != l.timer {
				l.event(fd, events[i].Events)
			} else {
				_, _ = readRaw(l.timer, l.buf[:8]) // or it stays readable
			}
		}
		l.issueDue()
	}
}

// take claims one request of the job.
func (l *loadLoop) take() bool { return l.left.Add(-1) >= 0 }

// finish lets a run that is under way begin no more requests.
func (ld *load) finish() { ld.left.Store(0) }
