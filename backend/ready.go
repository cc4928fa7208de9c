package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Check names a way to prove a generation ready.
type Check string

// The readiness checks.
const (
	CheckAuto    Check = "auto"    // notify if it speaks, else connect
	CheckNotify  Check = "notify"  // it sends READY=1
	CheckConnect Check = "connect" // it accepts a connection on every listener
	CheckHTTP    Check = "http"    // it answers 2xx on a path
	CheckCommand Check = "command" // a command exits with 0
)

// Readiness says when a generation counts as ready. That it still runs is part
// of every check: the Machine hears of its exit. So is that its start is over:
// see Starter.
type Readiness struct {
	Check     Check
	Path      string        // http: the path to GET
	Command   []string      // command: what to run
	Interval  time.Duration // between tries
	Timeout   time.Duration // of one try
	Successes int           // in a row
	// Greetings is what connections that are made for connect and http begin
	// with, by listener: where a program expects a header in front of all else.
	Greetings map[string][]byte
}

// firstTry is how soon a failed first try is repeated; the pause doubles up to
// Interval, so that a program which is ready in 20 ms is seen to be.
const firstTry = 10 * time.Millisecond

// proof is one run of a readiness check.
type proof struct {
	readiness Readiness
	run       Run
	notices   chan Notice

	mu   sync.Mutex
	last string // why the last try failed
}

func newProof(r Readiness, run Run) *proof {
	return &proof{readiness: r, run: run, notices: make(chan Notice, 16)}
}

// tell hands a notice to the proof. It never blocks: where the proof does not
// keep up, the oldest notice goes.
func (p *proof) tell(n Notice) {
	for {
		select {
		case p.notices <- n:
			return
		default:
		}
		select {
		case old := <-p.notices:
			n.Ready = n.Ready || old.Ready
		default:
		}
	}
}

// lastFailure tells why the last try failed.
func (p *proof) lastFailure() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *proof) failed(why string) {
	p.mu.Lock()
	p.last = why
	p.mu.Unlock()
}

// prove gives nil when the check holds and the start is over, or waits until ctx
// ends.
func (p *proof) prove(ctx context.Context) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	s, ok := p.run.(Starter)
	if !ok {
		return nil
	}
	select {
	case <-s.Started():
		return nil
	default:
	}
	p.failed("it serves, but its unit is still starting (ExecStartPost=, or READY=1 that was not sent)")
	select {
	case <-s.Started():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check tries until the check holds and gives nil, or until ctx ends.
func (p *proof) check(ctx context.Context) error {
	tries := p.readiness.Check != CheckNotify && !(p.heeds() && p.run.Tells())
	if !tries {
		p.failed("READY=1 has not been sent to $NOTIFY_SOCKET")
	}
	pause, inARow := firstTry, 0
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-p.notices:
			if p.heeds() {
				if n.Ready {
					return nil
				}
				tries = false // it speaks: from now on its word counts
				p.failed("it speaks sd_notify, but has not sent READY=1" + quoted(n.Status))
			}
		case <-next.C:
			if !tries {
				continue
			}
			err := p.try(ctx)
			if err == nil {
				if inARow++; inARow >= max(p.readiness.Successes, 1) && !p.spoke() {
					return nil
				}
			} else {
				inARow = 0
				if ctx.Err() == nil {
					p.failed(err.Error())
				}
			}
			next.Reset(pause)
			pause = min(2*pause, max(p.readiness.Interval, firstTry))
		}
	}
}

// heeds says whether this check listens to what the generation says of itself.
func (p *proof) heeds() bool {
	return slices.Contains([]Check{CheckAuto, CheckNotify}, p.readiness.Check)
}

// spoke says that a notice waits, so that auto does not call a generation ready
// which began to speak for itself while the last try was made.
func (p *proof) spoke() bool { return p.heeds() && len(p.notices) > 0 }

func quoted(status string) string {
	if status == "" {
		return ""
	}
	return fmt.Sprintf(" (status: %q)", status)
}

func (p *proof) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.readiness.Timeout)
	defer cancel()
	switch p.readiness.Check {
	case CheckHTTP:
		return p.get(ctx)
	case CheckCommand:
		return p.run.Command(ctx, p.readiness.Command)
	default:
		return p.connect(ctx)
	}
}

// connect proves that the program accepts: on a queue that proxyd itself holds
// open a connect always succeeds, so there the connection must also leave the
// queue.
func (p *proof) connect(ctx context.Context) error {
	for name, addr := range p.run.Addresses() {
		conn, err := p.dial(ctx, name, addr)
		if err != nil {
			return err
		}
		err = p.accepted(ctx, name)
		conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *proof) accepted(ctx context.Context, listener string) error {
	pause := time.Millisecond
	for {
		n, ok := p.run.Waiting(listener)
		if !ok || n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not accept connections on %q (%d wait in its queue)", listener, n)
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}

// errSelf: a dial to a loopback port that nobody listens on can be given that
// very port as its own and connect to itself.
var errSelf = errors.New("nobody listens there")

// dial connects to a listener's address and sends its greeting.
func (p *proof) dial(ctx context.Context, listener string, addr net.Addr) (net.Conn, error) {
	conn, err := p.reach(ctx, listener, addr)
	if err != nil {
		return nil, err
	}
	if greeting := p.readiness.Greetings[listener]; len(greeting) > 0 {
		if _, err := conn.Write(greeting); err != nil { // fits any socket's buffer
			conn.Close()
			return nil, fmt.Errorf("greet %s: %w", addr, err)
		}
	}
	return conn, nil
}

func (p *proof) reach(ctx context.Context, listener string, addr net.Addr) (net.Conn, error) {
	if r, ok := p.run.(Reacher); ok {
		if conn, ok, err := r.Reach(ctx, listener); ok || err != nil {
			return conn, err
		}
	}
	return dial(ctx, addr)
}

func dial(ctx context.Context, addr net.Addr) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return nil, err
	}
	if addr.Network() != "unix" && conn.LocalAddr().String() == conn.RemoteAddr().String() {
		_ = conn.(*net.TCPConn).SetLinger(0) // else the port is in TIME_WAIT, and cannot be bound
		conn.Close()
		return nil, fmt.Errorf("dial %s: %w", addr, errSelf)
	}
	return conn, nil
}

// get asks the first listener by name for Path and wants a 2xx.
func (p *proof) get(ctx context.Context) error {
	addresses := p.run.Addresses()
	names := make([]string, 0, len(addresses))
	for name := range addresses {
		names = append(names, name)
	}
	if len(names) == 0 {
		return errors.New("it has no address")
	}
	slices.Sort(names)
	addr := addresses[names[0]]
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return p.dial(ctx, names[0], addr)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+p.readiness.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "proxyd")
	resp, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("GET %s: %s", p.readiness.Path, resp.Status)
	}
	return nil
}
