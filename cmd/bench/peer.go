package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend/control"
)

// maxDescriptors is what every process of the bench gets, so that all peers have
// the same and the result does not depend on the shell.
const maxDescriptors = 20000

// peer is something that stands between the load and the backend.
type peer struct {
	name    string
	about   string // how it is set up, for the reader
	unix    bool   // reaches a unix-domain backend
	ours    bool   // the one that is compared; the others are what it is compared to
	direct  bool   // nothing stands between: a measure of what is possible, not a peer
	perConn int    // descriptors it needs for a connection

	// find says which one is installed, or why it cannot be used.
	find func(ctx context.Context, b *bench) (release string, err error)
	// start starts it on p.front, before the backend at p.backend. It cleans up
	// after itself where it fails.
	start func(ctx context.Context, b *bench, p place) (*running, error)
}

// place is where a peer is to run.
type place struct {
	dir     string // its own, empty
	front   string // address to listen on
	backend string // "127.0.0.1:PORT" or "unix:PATH"
	kind    string // of the backend: "tcp" or "unix"
}

// running is a started peer with its backend.
type running struct {
	peer     *peer
	front    string // where the load connects to
	pids     []int  // of the proxy
	backends []int
	children []*child // ended in this order
	control  *control.Client
	ports    []int
}

// end ends the peer, then its backend.
func (r *running) end() {
	for _, c := range r.children {
		c.end()
	}
	for _, p := range r.ports {
		activation.ReleasePort(p)
	}
}

// launch starts a peer with a backend of its own, and returns when it answers.
func (b *bench) launch(ctx context.Context, p *peer, kind string) (r *running, err error) {
	b.launched++
	at := place{dir: filepath.Join(b.dir, strconv.Itoa(b.launched)), kind: kind}
	if err := os.Mkdir(at.dir, 0o755); err != nil {
		return nil, err
	}
	front, err := activation.FreePort()
	if err != nil {
		return nil, err
	}
	behind, err := activation.FreePort()
	if err != nil {
		activation.ReleasePort(front)
		return nil, err
	}
	at.front = loopback(front)
	at.backend = loopback(behind)
	if kind == "unix" && !p.direct {
		at.backend = "unix:" + filepath.Join(at.dir, "b.sock")
	}
	r, err = p.start(ctx, b, at)
	if err != nil {
		activation.ReleasePort(front)
		activation.ReleasePort(behind)
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	r.peer, r.ports = p, []int{front, behind}
	if r.front == "" {
		r.front = at.front
	}
	if err := awaitAnswer(ctx, r.front, r.children[0]); err != nil {
		r.end()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	if len(r.pids) == 0 && !p.direct {
		r.pids = family(r.children[0].pid())
	}
	return r, nil
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// behind starts the backend of a place, and then the peer before it; argv is
// asked for only once the backend is there.
func behind(p place, argv ...string) (*running, error) {
	back, err := startBackend(p.backend)
	if err != nil {
		return nil, err
	}
	front, err := startChild(argv...)
	if err != nil {
		back.end()
		return nil, err
	}
	return &running{children: []*child{front, back}, backends: []int{back.pid()}}, nil
}

func startBackend(address string) (*child, error) {
	flag, value := backendFlag(address)
	return startSelf("backend", flag, value, "--while", strconv.Itoa(os.Getpid()))
}

var errNotInstalled = errors.New("not installed")
