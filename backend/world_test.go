package backend

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// runs is what the world knows of a generation's process.
type runs int

const (
	ended runs = iota
	launching
	running
)

// world is everything around a Machine: processes, timers, the disk. It carries
// out actions and keeps what is needed to judge them.
type world struct {
	t       *rapid.T
	m       *Machine
	policy  Policy
	process map[uint64]runs
	proving map[uint64]bool
	proven  map[uint64]bool // this process was, or outlived a proxyd
	asked   map[uint64]bool // this process was told to end
	highest uint64          // number that was ever started

	armed     map[timerKey]uint64
	fired     []TimerFired // timers that fired or were cancelled
	drains    []Drained    // every drain that was ever asked for
	lastDrain map[uint64]uint64

	disk    Durable
	routed  uint64
	steered uint64              // as routed, and outlives proxyd
	apart   map[uint64]Stranded // this process can be given no clients any more
	left    uint64              // current before a stranded one was replaced
	given   map[uint64]bool     // this process was given clients, and was not seen without any since
	settled uint64              // current, while no switch is being made
	making  uint64              // where a switch goes whose end is not on disk
	made    uint64              // where the last one went that was made
	served  bool                // there was a current generation

	wish      uint64 // of the data path, to move from this one
	lastOp    Op
	open      map[Op]bool
	ifCurrent map[Op]uint64
	crashIn   int // actions until proxyd is killed; below zero: it is not
	finished  bool

	booting          bool // not every process was looked for yet
	nothingMayFollow bool
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, policy: randomPolicy(t), process: map[uint64]runs{}, proving: map[uint64]bool{},
		proven: map[uint64]bool{}, asked: map[uint64]bool{}, given: map[uint64]bool{}, apart: map[uint64]Stranded{}, lastDrain: map[uint64]uint64{},
		armed: map[timerKey]uint64{}, open: map[Op]bool{}, ifCurrent: map[Op]uint64{}, crashIn: -1,
	}
	w.m = NewMachine(w.policy, Durable{})
	return w
}

type crashed struct{}

// guarded plays f, and a new proxyd where the old one is killed within it.
func (w *world) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crashed); !ok {
				panic(r)
			}
			w.restart()
		}
	}()
	f()
}

// step gives e to the machine, carries out what follows and judges it.
func (w *world) step(e Event) {
	before := w.look()
	w.happened(e)
	actions := w.m.Step(e)
	if w.nothingMayFollow && len(actions) > 0 {
		w.t.Fatalf("%#v came too late, and led to %v", e, actions)
	}
	w.check(before, e, actions)
	var next Event
	for _, a := range actions {
		if w.crashIn == 0 {
			panic(crashed{})
		}
		if w.crashIn > 0 {
			w.crashIn--
		}
		if n := w.do(a); n != nil {
			next = n
		}
	}
	if !w.booting && next == nil {
		w.checkStill()
	}
	if next != nil {
		w.step(next)
	}
}

// happened notes what e says about the world.
func (w *world) happened(e Event) {
	switch e := e.(type) {
	case Started:
		if !w.nothingMayFollow {
			w.process[e.Gen] = running
			w.proven[e.Gen], w.asked[e.Gen] = false, false
			delete(w.apart, e.Gen)
		}
	case StartFailed:
		if !w.nothingMayFollow {
			w.process[e.Gen] = ended
		}
	case ProvenReady:
		if !w.nothingMayFollow {
			w.proving[e.Gen], w.proven[e.Gen] = false, true
		}
	case Misfit:
		if !w.nothingMayFollow {
			w.proving[e.Gen] = false
		}
	case Exited:
		if !w.nothingMayFollow {
			w.process[e.Gen], w.proving[e.Gen], w.given[e.Gen] = ended, false, false
		}
	case Drained:
		if w.lastDrain[e.Gen] == e.Serial { // seen once, and more than once means nothing
			w.given[e.Gen] = w.given[e.Gen] && w.steered == e.Gen
		}
	case TimerFired:
		if key := (timerKey{e.Gen, e.Kind}); w.armed[key] == e.Serial {
			w.fired = append(w.fired, e)
			delete(w.armed, key)
		}
	}
}

// do carries out one action.
func (w *world) do(a Action) Event {
	switch a := a.(type) {
	case Save:
		w.disk, w.making = w.m.durable(), 0
	case Start:
		w.started(a.Gen)
	case Prove:
		w.proving[a.Gen] = true
	case StopProving:
		w.proving[a.Gen] = false
	case Switch:
		return w.switchTo(a)
	case Seal, Leave:
		w.route(0)
	case Route:
		w.route(a.Gen)
	case WatchDrain:
		if w.steered == a.Gen {
			w.t.Fatalf("generation %d is watched for having drained while it is given clients", a.Gen)
		}
		w.drains = append(w.drains, Drained(a))
		w.lastDrain[a.Gen] = a.Serial
	case Stop:
		w.asked[a.Gen] = true
	case Kill:
		w.asked[a.Gen] = true
	case SetTimer:
		w.disarm(timerKey{a.Gen, a.Kind})
		w.armed[timerKey{a.Gen, a.Kind}] = a.Serial
	case CancelTimer:
		w.disarm(timerKey{a.Gen, a.Kind})
	case Release:
		if w.process[a.Gen] != ended {
			w.t.Fatalf("the sockets of generation %d were given up while it runs", a.Gen)
		}
	case Answer:
		if !w.open[a.Op] {
			w.t.Fatalf("operation %d was answered twice, or never asked: %+v", a.Op, a.Outcome)
		}
		delete(w.open, a.Op)
	case Finish:
		if w.finished {
			w.t.Fatal("finished twice")
		}
		w.finished = true
	}
	return nil
}

func (w *world) started(id uint64) {
	if w.process[id] != ended {
		w.t.Fatalf("generation %d was started while it runs", id)
	}
	if !slices.ContainsFunc(w.disk.Generations, func(r DurableGeneration) bool { return r.ID == id }) || w.disk.Next <= id {
		w.t.Fatalf("generation %d was started before its number was on disk", id)
	}
	w.process[id] = launching
	w.highest = max(w.highest, id)
}

// switchTo makes the switch, or fails where it may: before the rename, or after.
func (w *world) switchTo(a Switch) Event {
	if _, apart := w.apart[a.Gen]; apart || w.process[a.Gen] != running || !w.proven[a.Gen] {
		w.t.Fatalf("switched to generation %d, which cannot serve", a.Gen)
	}
	w.making, w.made = a.Gen, 0
	w.given[a.Gen] = true
	if w.crashIn >= 0 && rapid.Bool().Draw(w.t, "killed before it is on disk") {
		w.route(a.Gen)
		panic(crashed{})
	}
	how := 0
	if a.Strict {
		how = rapid.IntRange(0, 4).Draw(w.t, "switch")
	}
	switch how {
	case 3:
		w.disk = w.m.durable()
		return SwitchFailed{Gen: a.Gen, Reason: "after the rename"}
	case 4:
		return SwitchFailed{Gen: a.Gen, Reason: "before the rename"}
	}
	w.route(a.Gen)
	w.made = a.Gen
	w.disk = w.m.durable()
	return Switched{Gen: a.Gen}
}

// route gives new clients to a generation, or to none.
func (w *world) route(id uint64) {
	w.routed, w.steered = id, id
	if _, apart := w.apart[id]; apart {
		w.t.Fatalf("routed to generation %d, which can be given no clients", id)
	}
	if id != 0 {
		w.given[id] = true
	}
}

func (w *world) disarm(key timerKey) {
	if serial, ok := w.armed[key]; ok {
		w.fired = append(w.fired, TimerFired{Gen: key.gen, Kind: key.kind, Serial: serial})
		delete(w.armed, key)
	}
}

func (w *world) ids() []uint64 { return slices.Sorted(maps.Keys(w.process)) }

// due lists what the machine waits for.
func (w *world) due() []Event {
	var due []Event
	for _, id := range w.ids() {
		switch {
		case w.process[id] == launching:
			due = append(due, Started{Gen: id})
		case w.process[id] == running && w.asked[id]:
			due = append(due, Exited{Gen: id, Reason: "as asked"})
		case w.proving[id]:
			due = append(due, ProvenReady{Gen: id}, Misfit{Gen: id, Why: "blocking accept"})
		}
		if serial := w.lastDrain[id]; serial != 0 && w.routed != id {
			due = append(due, Drained{Gen: id, Serial: serial})
		}
	}
	return due
}

func (w *world) armedTimers() []TimerFired {
	var timers []TimerFired
	for key, serial := range w.armed {
		timers = append(timers, TimerFired{Gen: key.gen, Kind: key.kind, Serial: serial})
	}
	slices.SortFunc(timers, func(a, b TimerFired) int { return int(a.Serial) - int(b.Serial) })
	return timers
}

// restart is a new proxyd on what the killed one left: the disk and processes.
func (w *world) restart() {
	old, making := w.settled, w.making
	w.crashIn, w.routed, w.making, w.nothingMayFollow = -1, 0, 0, false
	clear(w.open) // their clients see the connection end
	clear(w.armed)
	clear(w.proving)
	clear(w.lastDrain)
	w.fired, w.drains = nil, nil
	w.m = NewMachine(w.policy, w.disk)
	w.wish = 0
	var found []Event
	for _, id := range w.ids() {
		if w.process[id] == launching { // killed within the start
			w.process[id] = rapid.SampledFrom([]runs{ended, running}).Draw(w.t, "launched")
		}
		if w.process[id] == running {
			if w.m.gens[id] == nil {
				w.t.Fatalf("generation %d runs and was forgotten", id)
			}
			w.asked[id], w.proven[id] = false, true
			delete(w.apart, id)
			if rapid.IntRange(0, 3).Draw(w.t, "stranded") == 0 {
				w.apart[id] = Stranded{Gen: id, Why: "its sockets are not the listeners' any more", Beside: rapid.Bool().Draw(w.t, "beside")}
				found = append(found, w.apart[id])
				continue
			}
			found = append(found, Adopted{Gen: id})
		} else if w.m.gens[id] != nil {
			found = append(found, Lost{Gen: id})
		}
	}
	if now := w.m.current; now != old && now != making && now != w.made && now != w.left {
		w.t.Fatalf("generation %d is current after a restart; it was %d, perhaps %d", now, old, making)
	}
	w.settled, w.left = w.m.current, 0
	w.served = w.settled != 0
	w.booting = true
	for _, e := range found {
		w.step(e)
	}
	w.booting = false
	w.step(Booted{Release: "v0"})
}
