package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config is what a Supervisor works with. Driver, Router, Store, History and
// Log must be set.
type Config struct {
	Service    string
	Release    string // what the first generation runs, where there is no state
	Policy     Policy
	Readiness  Readiness
	StopSignal syscall.Signal // default SIGTERM
	Driver     Driver
	Router     Router
	Store      *Store
	Durable    Durable // what Store gave
	Known      bool    // Durable was read, rather than empty for want of a state
	History    *History
	Log        hclog.Logger
	// Leave is for generations that outlive proxyd: Run then ends without ending
	// them, once connections have had Policy.ShutdownDrain to finish.
	Leave bool
	// Fault, where set, is called with the name of each step that a promote
	// goes through, so that a test can end the process exactly there.
	Fault func(step string)
}

// Supervisor runs one service's generations. New makes it, Run runs it; the
// other methods may be called from any goroutine while it runs, and give
// ErrEnded once it does not.
type Supervisor struct {
	cfg     Config
	log     hclog.Logger
	machine *Machine

	events chan Event
	calls  chan func() // requests and queries, run by the owner
	quit   chan struct{}
	tasks  sync.WaitGroup
	ctx    context.Context // of the tasks; ended when Run returns
	cancel context.CancelFunc

	// Below: only the goroutine of Run.
	gens       map[uint64]*member
	timers     map[timerKey]*time.Timer
	again      *time.Timer // writes the state that could not be written
	answers    map[Op]chan Answered
	lastOp     Op
	switchedAt time.Time // of the last switch
	heldUntil  time.Time
	served     bool // clients were let through at least once
	finished   bool
	watchers   map[chan Entry]bool
	wish       MoveWished // as the Machine was told last
}

// Answered is the answer to a request, with the last lines that the generation
// wrote where it was not ready.
type Answered struct {
	Outcome
	Release    string
	LastLines  []string
	SwitchedAt time.Time // where it Switched: when every event loop had seen it
}

// ErrEnded says that the Supervisor does not run any more.
var ErrEnded = errors.New("proxyd is ending")

// New checks c and gives a Supervisor that Run starts.
func New(c Config) (*Supervisor, error) {
	if c.Driver == nil || c.Router == nil || c.Store == nil || c.History == nil {
		return nil, errors.New("new supervisor: a driver, a router, a store and a history are needed")
	}
	if err := checkTimes(c.Policy, c.Readiness); err != nil {
		return nil, fmt.Errorf("new supervisor: %w", err)
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.StopSignal == 0 {
		c.StopSignal = syscall.SIGTERM
	}
	if c.Fault == nil {
		c.Fault = func(string) {}
	}
	s := &Supervisor{
		cfg: c, log: c.Log,
		events: make(chan Event), calls: make(chan func()), quit: make(chan struct{}),
		gens: map[uint64]*member{}, timers: map[timerKey]*time.Timer{},
		answers: map[Op]chan Answered{}, watchers: map[chan Entry]bool{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// checkTimes tells whether a Supervisor can work with these.
func checkTimes(p Policy, r Readiness) error {
	switch {
	case r.Timeout <= 0 || r.Interval <= 0:
		return errors.New("ready.timeout and ready.interval must be over zero")
	case p.ReadyDeadline <= 0:
		return errors.New("ready.deadline must be over zero")
	case p.StopTimeout < 0:
		return errors.New("stop.timeout must not be below zero")
	}
	return nil
}

// Run takes over what outlived the last proxyd, starts what should run, and
// supervises until ctx ends; then it lets connections finish, ends the
// generations (unless Config.Leave) and returns. It waits for every goroutine that it started.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.tasks.Wait()
	defer s.cancel()
	defer close(s.quit)
	defer s.endTimers()
	s.boot(ctx)
	done := ctx.Done()
	for !s.finished {
		select {
		case e := <-s.events:
			s.step(e)
		case call := <-s.calls:
			call()
		case <-done:
			done = nil
			s.log.Info("ending", "in_flight", s.inFlight())
			if s.cfg.Leave {
				s.leave()
			} else {
				s.step(ShutdownRequested{})
			}
		}
	}
	for _, answer := range s.answers {
		close(answer)
	}
	for w := range s.watchers {
		close(w)
	}
	return nil
}

// leave takes clients no more and lets Run end when none is in flight.
func (s *Supervisor) leave() {
	s.step(LeaveRequested{})
	s.tasks.Add(1)
	go s.leaving(s.cfg.Router.Empty(), s.cfg.Policy.ShutdownDrain)
}

// leaving ends when no connection is left, when the time for that is over, or
// with Run.
func (s *Supervisor) leaving(empty <-chan struct{}, atMost time.Duration) {
	defer s.tasks.Done()
	late := time.NewTimer(atMost)
	defer late.Stop()
	select {
	case <-empty:
	case <-late.C:
	case <-s.quit:
		return
	}
	_ = s.call(s.ctx, func() { s.finished = true })
}

// post hands an event of a task or timer to the owner.
func (s *Supervisor) post(e Event) {
	select {
	case s.events <- e:
	case <-s.quit:
	}
}

// call runs f on the owner's goroutine and waits for it.
func (s *Supervisor) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-s.quit:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// step gives e to the Machine and does what follows, and what follows from
// that, until nothing is left.
func (s *Supervisor) step(e Event) {
	queue := []Event{e}
	for len(queue) > 0 {
		actions := s.machine.Step(queue[0])
		queue = queue[1:]
		s.stamp()
		for _, a := range actions {
			if next := s.do(a); next != nil {
				queue = append(queue, next)
			}
		}
		s.forget()
		if len(queue) == 0 {
			queue = s.wished()
		}
	}
}

// wished gives the event of a wish that is another than before.
func (s *Supervisor) wished() []Event {
	if w, ok := s.cfg.Router.(Wisher); ok {
		var now MoveWished
		if now.Gen, now.Why = w.Wish(); now != s.wish {
			s.wish = now
			return []Event{now}
		}
	}
	return nil
}

func (s *Supervisor) inFlight() uint64 {
	var n uint64
	for id := range s.gens {
		n += s.cfg.Router.Counts(id).InFlight
	}
	return n
}

func (s *Supervisor) endTimers() {
	for _, t := range s.timers {
		t.Stop()
	}
	if s.again != nil {
		s.again.Stop()
	}
}
