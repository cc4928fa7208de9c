package main

import (
	"maps"
	"net"
	"sync"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/proxy"
)

// router adapts the data path to what the supervisor speaks of: numbers of
// generations.
type router struct {
	proxy *proxy.Proxy

	mu     sync.Mutex
	routes map[uint64]*openRoute
}

type openRoute struct {
	*proxy.Route
	addresses map[string]net.Addr
}

var _ backend.Router = (*router)(nil)

func newRouter(p *proxy.Proxy) *router {
	return &router{proxy: p, routes: map[uint64]*openRoute{}}
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
	r.routes[id] = &openRoute{route, addresses}
	return nil
}

func (r *router) route(id uint64) *openRoute {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.routes[id]
}

func (r *router) Switch(id uint64) {
	if route := r.route(id); route != nil {
		r.proxy.Switch(route.Route)
		return
	}
	r.proxy.Switch(nil)
}

func (r *router) Drained(id uint64) <-chan struct{} {
	if route := r.route(id); route != nil {
		return route.Drained()
	}
	none := make(chan struct{})
	close(none)
	return none
}

func (r *router) Cut(id uint64) {
	if route := r.route(id); route != nil {
		route.Cut()
	}
}

func (r *router) Close(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.routes, id)
}

func (r *router) Hold()                  { r.proxy.Hold() }
func (r *router) Empty() <-chan struct{} { return r.proxy.Empty() }
func (r *router) Resume()                { r.proxy.Resume() }

func (r *router) Counts(id uint64) backend.Counts {
	route := r.route(id)
	if route == nil {
		return backend.Counts{}
	}
	c := route.Counts()
	return backend.Counts{
		InFlight: c.InFlight, Accepted: c.Accepted, ConnectFailures: c.ConnectFailures,
		BytesFromClients: c.BytesFromClients, BytesToClients: c.BytesToClients,
	}
}
