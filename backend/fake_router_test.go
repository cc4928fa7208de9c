package backend

import (
	"errors"
	"net"
	"slices"
	"sync"
)

// fakeRouter counts connections that a test opens and closes by hand.
type fakeRouter struct {
	mu       sync.Mutex
	open     map[uint64]bool
	to       uint64
	inFlight map[uint64]int
	drains   map[uint64][]chan struct{}
	cuts     []uint64
	held     bool
	sealed   bool
	empty    chan struct{} // closed and nil when it is
	refuse   uint64        // Open fails for this one
	wish     uint64        // what it gives as a Wisher
}

func newFakeRouter() *fakeRouter {
	return &fakeRouter{open: map[uint64]bool{}, inFlight: map[uint64]int{}, drains: map[uint64][]chan struct{}{}}
}

func (r *fakeRouter) Open(id uint64, _ map[string]net.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == r.refuse {
		return errors.New("no such listener")
	}
	r.open[id] = true
	return nil
}

func (r *fakeRouter) Switch(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != 0 && !r.open[id] {
		panic("switched to a generation that is not open")
	}
	r.to = id
	r.settle()
}

func (r *fakeRouter) Seal()  { r.seal(true) }
func (r *fakeRouter) Leave() { r.seal(true) }

func (r *fakeRouter) seal(sealed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = sealed
	r.settle()
}

// settle closes the channels of what has drained. The caller holds r.mu.
func (r *fakeRouter) settle() {
	for id, waiting := range r.drains {
		if (id != r.to || r.sealed) && r.inFlight[id] == 0 {
			for _, c := range waiting {
				close(c)
			}
			delete(r.drains, id)
		}
	}
	n := 0
	for _, c := range r.inFlight {
		n += c
	}
	if r.empty != nil && n == 0 {
		close(r.empty)
		r.empty = nil
	}
}

func (r *fakeRouter) Drained(id uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	r.drains[id] = append(r.drains[id], c)
	r.settle()
	return c
}

func (r *fakeRouter) Cut(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts = append(r.cuts, id)
	r.inFlight[id] = 0
	r.settle()
}

func (r *fakeRouter) Close(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, id)
}

// Empty waits for all connections, wherever they go.
func (r *fakeRouter) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.empty = make(chan struct{})
	r.settle()
	return r.empty
}

func (r *fakeRouter) Hold()   { r.hold(true) }
func (r *fakeRouter) Resume() { r.hold(false) }

func (r *fakeRouter) hold(held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
}

func (r *fakeRouter) Wish() (uint64, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wish == 0 {
		return 0, ""
	}
	return r.wish, "to the direct path"
}

func (r *fakeRouter) wishes(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wish = id
}

func (r *fakeRouter) Counts(id uint64) Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Counts{InFlight: uint64(r.inFlight[id])}
}

// connections sets how many are in flight on a generation.
func (r *fakeRouter) connections(id uint64, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight[id] = n
	r.settle()
}

func (r *fakeRouter) routed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to
}

func (r *fakeRouter) isSealed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sealed
}

func (r *fakeRouter) isHeld() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

func (r *fakeRouter) wasCut(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.cuts, id)
}
