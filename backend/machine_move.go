package backend

import "time"

// A move is proxyd's own promote: where the data path wishes it (MoveWished), a
// generation of the current release is started beside the current one, proven
// ready, and made current. It is what a running process cannot do by itself: to
// take connections from another socket than those that it was handed.

// A move that came to nothing is tried again after a while: what was in its way
// is seldom gone at once, and each try starts a program that nobody asked for.
const (
	moveAgain = time.Minute
	moveMost  = time.Hour
)

// moveIfWished begins a move once nothing speaks against it. It comes after each
// event, as any may have been what it waited for.
func (m *Machine) moveIfWished() {
	g := m.gens[m.current]
	if g == nil || m.wish.Gen != g.id || g.process != processUp || g.probation ||
		m.op != nil || m.pending != nil || m.held || m.closing {
		return
	}
	if _, waits := m.timers[timerKey{g.id, TimerMove}]; waits || m.cutsForOneMore() {
		return
	}
	m.forgetMoves()
	m.op = &operation{verb: "move", gen: m.next, ifCurrent: g.id, started: true, why: m.wish.Why}
	m.create(g.release, originMove, "")
}

// cutsForOneMore says that a switch would cut a generation that drains. That is
// an operator's to decide.
func (m *Machine) cutsForOneMore() bool {
	n := 0
	for _, g := range m.gens {
		if g.drainsSuperseded() {
			n++
		}
	}
	return m.policy.MaxDraining > 0 && n >= m.policy.MaxDraining
}

// forgetMoves drops the records of moves that came to nothing, so that they push
// out none that a revert may want.
func (m *Machine) forgetMoves() {
	for id, g := range m.gens {
		if g.origin == originMove && id != m.previous && (g.state == Stopped || g.state == Failed) {
			delete(m.gens, id)
		}
	}
}

// twinOf gives the generation that g is to take the place of, and why; 0 for one
// that is not started for a move.
func (m *Machine) twinOf(g *generation) (id uint64, why string) {
	if op := m.op; op != nil && op.verb == "move" && op.gen == g.id {
		return op.ifCurrent, op.why
	}
	return 0, ""
}

// giveUpMove ends a move that is in progress: it never stands in the way.
func (m *Machine) giveUpMove(why string) {
	if op := m.op; op != nil && op.verb == "move" {
		m.endOp()
		m.stop(m.gens[op.gen], Stopped, "", why)
	}
}

// endUnwantedMoves ends what was started for a move that a switch superseded, and
// says whether there was any.
func (m *Machine) endUnwantedMoves() (any bool) {
	for _, g := range m.sorted() {
		if id, _ := m.twinOf(g); id == 0 && g.origin == originMove && g.state == Starting {
			m.stop(g, Stopped, "", "something else was asked for before it was ready")
			any = true
		}
	}
	return any
}

// endOp ends the operation in progress, which came to nothing.
func (m *Machine) endOp() {
	op := m.op
	m.op = nil
	if op.verb == "move" {
		m.moveLater(op.ifCurrent)
	}
}

// moveLater keeps a generation where it is for a while.
func (m *Machine) moveLater(id uint64) {
	if g := m.gens[id]; g != nil && g.state == Current && !m.closing {
		m.setTimer(g.id, TimerMove, Delay{After: min(moveAgain<<min(g.moves, 16), moveMost), Jitter: true})
		g.moves++
	}
}
