package proxy

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoAddress: a route lacks the address of a listener.
	ErrNoAddress = errors.New("no address for this listener")
	// ErrAddress: an address that cannot be connected to.
	ErrAddress = errors.New("not a unix or tcp address to connect to")
	// ErrListener: a descriptor that is no listening stream socket.
	ErrListener = errors.New("not a listening stream socket")
	// ErrListeners: more or fewer listeners than a Proxy takes.
	ErrListeners = errors.New("a proxy takes 1 to 64 listeners, members of groups included")
	// ErrLimits: the descriptor limit leaves no room for connections.
	ErrLimits = errors.New("the descriptor limit leaves no room for connections")
)

// MostListeners is how many a Config may have, members of groups included.
const MostListeners = 64

// Proxy accepts clients from listeners and relays them to the generation that
// is switched in. All methods are safe for concurrent use.
type Proxy struct {
	log       hclog.Logger
	names     []string
	listeners []int32
	isTCP     []bool
	members   []bool // those that Serve opens
	headers   []headers
	loops     []*loop

	connectTimeout  int64
	headerTimeout   int64
	idle, halfClose time.Duration
	keepAlive       time.Duration
	userTimeout     time.Duration
	sweep           int64 // ns between two looks for idle connections; 0: never
	ephemeral       [2]int
	paced           flags // of TCP sockets: paced, or none
	limit           int64

	mu     sync.Mutex // one change of route at a time
	route  atomic.Pointer[Route]
	taking atomic.Bool // there is somebody to take clients for
	served atomic.Bool // there was, at some time
	held   atomic.Bool
	barred atomic.Uint32 // see bar
	own    ownDials
	astray func()        // tells who steers that the relay met itself; nil: nobody does
	proven atomic.Uint64 // how often that was found to be in order since
	live   atomic.Int64
	open   atomic.Uint64 // listeners that clients are taken from, by index
	empty  atomic.Pointer[empty]
	// Clients given up since the last line about them, and when that was.
	unreached, toldAt atomic.Int64
	unusableAt        atomic.Int64 // when a listener that fails was told of last

	crowded atomic.Bool  // some loop stopped accepting at the limit
	emfile  atomic.Int64 // accepts that failed for want of descriptors or memory
}

// New starts the loops. Nothing is accepted until the first Switch. It sets
// TCP_NODELAY, keepalive and TCP_USER_TIMEOUT on TCP listeners, which what
// they accept inherits, and O_NONBLOCK where that is missing.
func New(cfg Config) (*Proxy, error) {
	if len(cfg.Listeners) == 0 || len(cfg.Listeners) > MostListeners {
		return nil, fmt.Errorf("start proxy with %d listeners: %w", len(cfg.Listeners), ErrListeners)
	}
	p := &Proxy{
		log:            cfg.Log,
		connectTimeout: int64(orElse(cfg.ConnectTimeout, 5*time.Second)),
		headerTimeout:  int64(orElse(cfg.HeaderTimeout, 5*time.Second)),
		idle:           max(0, cfg.IdleTimeout),
		halfClose:      max(0, cfg.HalfCloseTimeout),
		keepAlive:      orElse(cfg.KeepAlive, time.Minute),
		userTimeout:    orElse(cfg.UserTimeout, max(0, cfg.IdleTimeout)),
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	p.ephemeral = ephemeralPorts()
	p.paced = pacedByDefault()
	p.sweep = sweepEvery(p.idle, p.halfClose)
	for _, l := range cfg.Listeners {
		tcp, err := true, error(nil)
		if !l.Member {
			tcp, err = prepare(l.FD, p.keepAlive, p.userTimeout)
			p.open.Or(1 << len(p.listeners))
		}
		if err != nil {
			return nil, fmt.Errorf("start proxy: listener %q, descriptor %d: %w", l.Name, l.FD, err)
		}
		h, err := newHeaders(l)
		if err != nil {
			return nil, fmt.Errorf("start proxy: listener %q: %w", l.Name, err)
		}
		p.headers = append(p.headers, h)
		p.names = append(p.names, l.Name)
		p.listeners = append(p.listeners, int32(l.FD))
		p.isTCP = append(p.isTCP, tcp)
		p.members = append(p.members, l.Member)
	}
	n := cfg.Loops
	if n <= 0 {
		n = runtime.NumCPU()
	}
	for i := range n {
		l, err := newLoop(p, i)
		if err != nil {
			p.abandon()
			return nil, fmt.Errorf("start proxy: open event loop: %w", err)
		}
		p.loops = append(p.loops, l)
	}
	pipes, err := p.setLimit(cfg)
	if err != nil {
		p.abandon()
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	// A loop in epoll_wait(2) keeps its processor unless somebody wants it. If
	// none is idle, the runtime's monitor takes it away every 20 µs, at a tenth
	// of the CPU of a busy proxy; and the rest of the program would wait for
	// the loops. With two more both are gone.
	if runtime.GOMAXPROCS(0) < n+2 {
		runtime.GOMAXPROCS(n + 2)
	}
	for _, l := range p.loops {
		l.maxPipes = pipes
		go l.run()
	}
	return p, nil
}

// abandon closes loops that never ran.
func (p *Proxy) abandon() {
	for _, l := range p.loops {
		l.close()
		unix.Close(int(l.wake))
	}
}

// Switch makes new connections go to r. It returns when every loop has seen
// it: no connection accepted later goes elsewhere, and the in-flight count of
// the route before can only fall. nil: nothing can serve; clients wait in the
// listener's queue.
func (p *Proxy) Switch(r *Route) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r != nil {
		r.setQuiet(false)
	} else { // first, so that nobody is accepted for nothing
		p.take(false)
	}
	p.served.Store(p.served.Load() || r != nil)
	old := p.route.Swap(r)
	p.take(r != nil)
	if old != nil && old != r {
		old.setQuiet(true)
	}
}

// Seal takes no new clients until the next Switch, for a proxyd that ends. Unlike
// Switch(nil) it leaves the route to those who were accepted and are not
// connected yet. When it returns, the route's in-flight count can only fall.
func (p *Proxy) Seal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take(false)
	if r := p.route.Load(); r != nil {
		r.setQuiet(true)
	}
}

// take starts or stops accepting in every loop, and has each see the route.
func (p *Proxy) take(on bool) {
	p.taking.Store(on)
	p.see(on)
}

// see has every loop see what was changed.
func (p *Proxy) see(taking bool) {
	p.command(command{what: look})
	if !taking {
		// A loop may have given one that it accepted to another before it looked:
		// that one has taken it now.
		p.command(command{what: look})
	}
}

// Serve says whether clients are taken from the members with these descriptors
// and relayed like all others: from one that belongs to no generation, so that
// nothing that waits in its queue is lost. When it returns every loop knows. A
// member that is served is made non-blocking.
func (p *Proxy) Serve(on bool, members ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var bits uint64
	for _, fd := range members {
		i := slices.Index(p.listeners, int32(fd))
		if i < 0 {
			return fmt.Errorf("serve member, descriptor %d: %w", fd, ErrListener)
		}
		if on {
			if err := unix.SetNonblock(fd, true); err != nil {
				return fmt.Errorf("serve member, descriptor %d: %w", fd, err)
			}
		}
		bits |= 1 << i
	}
	if on {
		p.open.Or(bits)
	} else {
		p.open.And(^bits)
	}
	p.command(command{what: look})
	return nil
}

// Hold makes new clients wait in the listener's queue. It returns when no loop
// accepts any more, and what was accepted before is on its way to its backend.
func (p *Proxy) Hold() { p.hold(true) }

// Resume ends a hold.
func (p *Proxy) Resume() { p.hold(false) }

func (p *Proxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held.Store(on)
	p.see(!on)
}

// command has every loop do something and waits for all of them.
func (p *Proxy) command(c command) {
	var done sync.WaitGroup
	done.Add(len(p.loops))
	c.done = &done
	for _, l := range p.loops {
		l.post(c)
	}
	done.Wait()
}

// Close resets what is left and ends the loops. The listeners stay open.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.command(command{what: stop})
	for _, l := range p.loops {
		<-l.finished
		l.mu.Lock()
		if l.wake >= 0 {
			unix.Close(int(l.wake))
			l.wake = -1
		}
		l.mu.Unlock()
	}
	return nil
}

// Progress gives the number of turns that each loop has made, and makes each
// take one more: a loop whose number is the same at the next call is stuck.
func (p *Proxy) Progress() []uint64 {
	turns := make([]uint64, len(p.loops))
	for i, l := range p.loops {
		turns[i] = l.turns.Load()
		l.mu.Lock()
		if !l.over {
			l.rouse()
		}
		l.mu.Unlock()
	}
	return turns
}

// selfRisk tells whether a connect on a route can meet itself.
func (p *Proxy) selfRisk(r *Route, listener int) bool {
	port := r.dests[listener].port
	return port >= p.ephemeral[0] && port <= p.ephemeral[1]
}

func orElse(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// sweepEvery is an eighth of the shortest timeout, 5 ms to 1 s.
func sweepEvery(limits ...time.Duration) int64 {
	every := time.Duration(0)
	for _, d := range limits {
		if d > 0 && (every == 0 || d/8 < every) {
			every = d / 8
		}
	}
	if every == 0 {
		for _, d := range limits {
			if d > 0 {
				return int64(5 * time.Millisecond)
			}
		}
		return 0
	}
	return int64(min(max(every, 5*time.Millisecond), time.Second))
}
