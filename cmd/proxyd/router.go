package main

import (
	"maps"
	"net"
	"sync"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/proxy"
)

// router adapts the data path to what the supervisor speaks of: numbers of
// generations. A generation on the direct path has a route as well: what waits
// in queues that are nobody's is relayed to the listeners' own address, and the
// kernel gives it to the generation that it is steered to. So the relay never
// has such a route while new connections are steered to itself.
type router struct {
	proxy  *proxy.Proxy
	direct *directPath

	mu     sync.Mutex // one change at a time
	routes map[uint64]*openRoute
	to     uint64 // what new connections go to once nothing is held
	held   bool
}

type openRoute struct {
	*proxy.Route
	addresses map[string]net.Addr
}

var (
	_ backend.Router = (*router)(nil)
	_ backend.Wisher = (*router)(nil)
)

func newRouter(p *proxy.Proxy, d *directPath) *router {
	return &router{proxy: p, direct: d, routes: map[uint64]*openRoute{}}
}

// Open keeps the route that a generation has where its addresses are the same,
// so that its counts go on when its process is started again.
func (r *router) Open(id uint64, addresses map[string]net.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(a, b net.Addr) bool { return a.Network() == b.Network() && a.String() == b.String() }
	if old := r.routes[id]; old != nil && maps.EqualFunc(old.addresses, addresses, same) {
		return nil
	}
	route, err := r.proxy.NewRoute(id, addresses)
	if err != nil {
		return err
	}
	if r.direct.has(id) {
		route.KeepOrder()
	}
	r.routes[id] = &openRoute{route, addresses}
	return nil
}

func (r *router) route(id uint64) *openRoute {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.routes[id]
}

func (r *router) Switch(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = id
	route := r.routes[id]
	if route == nil {
		r.proxy.Switch(nil)
		r.direct.steer(0)
		return
	}
	if r.direct.has(id) && !r.held {
		r.direct.steer(id)
		r.proxy.Switch(route.Route)
		r.direct.tell(id)
		return
	}
	r.proxy.Switch(route.Route)
	r.direct.steer(0)
}

func (r *router) Drained(id uint64) <-chan struct{} {
	route := r.route(id)
	former := r.direct.former(id)
	switch {
	case former != nil:
		return former.Drained()
	case route == nil:
		none := make(chan struct{})
		close(none)
		return none
	case r.direct.has(id):
		return r.direct.direct.Drained(id, func() bool { return route.Counts().InFlight == 0 })
	}
	return route.Drained()
}

func (r *router) Cut(id uint64) {
	if route := r.route(id); route != nil {
		route.Cut()
	}
	r.direct.cut(id)
}

func (r *router) Close(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.routes, id)
	r.direct.forget(id)
}

// Seal steers to the relay once it takes nothing any more.
func (r *router) Seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proxy.Seal()
	r.direct.steer(0)
}

// Hold steers to the relay once it takes nothing any more.
func (r *router) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
	r.proxy.Hold()
	r.direct.steer(0)
}

// Resume lets new connections go on, and the relay take those that waited.
func (r *router) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	if r.direct.has(r.to) {
		r.direct.steer(r.to)
	}
	r.proxy.Resume()
	r.direct.tell(r.to)
}

// Leave changes no steering: new connections need not wait for the next proxyd where
// the kernel gives them to the current generation, and who was held goes on being
// held. Not one is sent to the relay meanwhile, where it would wait for the next
// proxyd, or be reset if the sockets are closed before that.
func (r *router) Leave() { r.proxy.Seal() }

func (r *router) Empty() <-chan struct{} { return r.proxy.Empty() }

// Wish is for a generation that is relayed because there was no free member when
// it was started. A process cannot be given another socket while it runs.
func (r *router) Wish() (id uint64, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to == 0 || !r.direct.wish(r.to) {
		return 0, ""
	}
	return r.to, "to the direct path: a member is free now"
}

// Counts of a generation on the direct path are those of its sockets; what the
// relay carries to it is among them. What it accepted by itself, and the bytes,
// nobody counts.
func (r *router) Counts(id uint64) backend.Counts {
	route := r.route(id)
	if route == nil { // it may be stranded
		return backend.Counts{InFlight: r.direct.inFlight(id)}
	}
	c := route.Counts()
	return backend.Counts{
		InFlight: max(c.InFlight, r.direct.inFlight(id)), Accepted: c.Accepted, ConnectFailures: c.ConnectFailures,
		BytesFromClients: c.BytesFromClients, BytesToClients: c.BytesToClients,
	}
}
