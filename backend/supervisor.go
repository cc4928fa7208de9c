package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
}

// member is what the Supervisor knows of a generation beside the Machine.
type member struct {
	state         State
	since         time.Time
	drainDeadline time.Time
	plan          json.RawMessage
	identity      json.RawMessage
	run           Run
	proof         *proof
	endProof      context.CancelFunc
	endStart      context.CancelFunc // while it starts
	lastRun       Run                // the run of the last start, ended or not
	lastLines     []string           // of a start that came to nothing
	notice        string
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
	}
}

// stamp notes when each generation came into its state: the Machine has no
// clock. A switch is not noted before it came about, because one that fails puts
// the states back.
func (s *Supervisor) stamp() {
	if s.machine.pending != nil {
		return
	}
	for id, g := range s.machine.gens {
		m := s.member(id)
		if m.state != g.state {
			m.state, m.since = g.state, time.Now()
			if g.state != Draining {
				m.drainDeadline = time.Time{}
			}
		}
	}
}

// forget drops what the Machine has pruned.
func (s *Supervisor) forget() {
	for id := range s.gens {
		if s.machine.gens[id] == nil {
			delete(s.gens, id)
			s.cfg.Router.Close(id)
		}
	}
	for key := range s.timers {
		if key.gen != 0 && s.machine.gens[key.gen] == nil {
			s.cancelTimer(key)
		}
	}
}

func (s *Supervisor) member(id uint64) *member {
	m := s.gens[id]
	if m == nil {
		m = &member{}
		s.gens[id] = m
	}
	return m
}

// boot goes on from the durable state: what outlived proxyd is adopted, what
// belongs to nothing is ended.
func (s *Supervisor) boot(ctx context.Context) {
	d := s.cfg.Durable
	if !s.cfg.Known {
		d = s.rebuild(ctx)
	}
	d.Next = max(d.Next, s.cfg.History.Highest()+1)
	s.machine = NewMachine(s.cfg.Policy, d)
	s.heldUntil = d.HeldUntil
	var found []Event
	var keep []uint64
	for _, r := range d.Generations {
		m := s.member(r.ID)
		m.state, m.since, m.drainDeadline, m.plan, m.identity = r.State, r.Since, r.DrainDeadline, r.Plan, r.Identity
		if m.since.IsZero() {
			m.since = time.Now()
		}
		if len(r.Identity) == 0 {
			continue
		}
		run, err := s.cfg.Driver.Adopt(ctx, Launch{ID: r.ID, Release: r.Release, Plan: r.Plan}, r.Identity)
		if err == nil {
			err = s.open(r.ID, m, run)
		}
		if err != nil {
			if !errors.Is(err, ErrGone) {
				s.log.Error("cannot take over a running generation", "generation", r.ID, "error", err)
			}
			m.run, m.identity = nil, nil
			found = append(found, Lost{Gen: r.ID})
			continue
		}
		keep = append(keep, r.ID)
		found = append(found, Adopted{Gen: r.ID})
		s.attend(r.ID, m)
	}
	if err := s.cfg.Driver.Sweep(ctx, keep); err != nil {
		s.log.Error("cannot end left-over processes", "error", err)
	}
	for _, e := range found {
		s.step(e)
	}
	s.step(Booted{Release: s.cfg.Release})
	if d.Held && !d.HeldUntil.IsZero() {
		s.step(HoldRequested{Limit: Delay{After: max(time.Until(d.HeldUntil), time.Millisecond)}})
	}
}

// rebuild makes a state of what runs, for when none can be read. The generation
// that history saw made current last is taken for the current one, else the one
// with the highest number.
func (s *Supervisor) rebuild(ctx context.Context) Durable {
	found, err := s.cfg.Driver.Found(ctx)
	if err != nil {
		s.log.Error("cannot look for running generations", "error", err)
	}
	var d Durable
	for _, f := range found {
		if f.Release == "" { // its program has overwritten its environment
			f.Release = s.cfg.History.release(f.ID)
		}
		plan, err := s.cfg.Driver.Plan(f.ID, f.Release)
		if err != nil {
			s.log.Error("cannot plan a found generation", "generation", f.ID, "error", err)
			continue
		}
		d.Generations = append(d.Generations, DurableGeneration{
			ID: f.ID, Release: f.Release, State: Draining, Origin: string(originStage), Plan: plan, Identity: f.Identity,
		})
		d.Current = max(d.Current, f.ID)
		d.Next = max(d.Next, f.ID+1)
	}
	runs := func(id uint64) bool {
		return slices.ContainsFunc(d.Generations, func(r DurableGeneration) bool { return r.ID == id })
	}
	for _, e := range s.cfg.History.Last(0) {
		if (e.Event == WhatPromoted || e.Event == WhatReverted) && runs(e.Gen) {
			d.Current, d.Previous = e.Gen, 0
			if e.From != e.Gen && runs(e.From) {
				d.Previous = e.From
			}
		}
	}
	for i := range d.Generations {
		if d.Generations[i].ID == d.Current {
			d.Generations[i].State = Current
			s.log.Warn("the state is lost: a running generation is taken for the current one", "generation", d.Current)
		}
	}
	return d
}

// durable gives the whole durable state, stamped.
func (s *Supervisor) durable() Durable {
	d := s.machine.durable()
	d.Service = s.cfg.Service
	if d.Held {
		d.HeldUntil = s.heldUntil
	}
	for i := range d.Generations {
		r := &d.Generations[i]
		m := s.member(r.ID)
		r.Since, r.DrainDeadline, r.Plan, r.Identity = m.since, m.drainDeadline, m.plan, m.identity
		if r.State != m.state { // a switch is being made
			r.Since, r.DrainDeadline = time.Now(), time.Time{}
		}
	}
	return d
}

// saveAgain is when a state that could not be written is written again, where no
// change did that before: a revert on a full disk must not be forgotten for ever.
const saveAgain = 30 * time.Second

func (s *Supervisor) save() {
	if s.again != nil {
		s.again.Stop()
		s.again = nil
	}
	memory, err := s.cfg.Store.Save(s.durable())
	if err != nil {
		s.log.Error("cannot write the state", "error", err, "kept_in_runtime_directory", memory)
		s.again = time.AfterFunc(saveAgain, func() { _ = s.call(s.ctx, s.save) })
	}
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

func (s *Supervisor) logFor(id uint64) hclog.Logger {
	log := s.log.With("generation", id)
	if g := s.machine.gens[id]; g != nil {
		log = log.With("release", g.release)
	}
	return log
}

// noticed keeps the generation's own status line and lets its proof know.
func (m *member) noticed(n Notice) {
	switch {
	case n.Status != "":
		m.notice = n.Status
	case n.Stopping:
		m.notice = "it says that it is stopping"
	}
	if m.proof != nil {
		m.proof.tell(n)
	}
}

// reasonWith adds what the readiness check last saw.
func (m *member) reasonWith(reason string) string {
	if m.proof == nil {
		return reason
	}
	if last := m.proof.lastFailure(); last != "" {
		return fmt.Sprintf("%s; its %s check last said: %s", reason, m.proof.readiness.Check, last)
	}
	return reason
}
