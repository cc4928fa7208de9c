package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says what a Server speaks for and how much it bears. Only Service must
// be set.
type Config struct {
	Service Service
	Log     hclog.Logger // nil: none

	// Handover gives the process pid, which asks for it, what its generation is
	// to have; nil where no generation asks. Who asks is known from the
	// descriptor, and the function must find out by pid whether it is a
	// generation's. The Server owns the descriptors that it gets.
	Handover func(ctx context.Context, pid int) (Handover, error)

	// MaxConnections at once; past it the least deserving one is dropped, see
	// the package comment. Default 64.
	MaxConnections int
	// RequestTimeout is how long a client may take to send one request.
	// Default 10s.
	RequestTimeout time.Duration
	// WriteTimeout is how long a client may take to read one answer, or one
	// event. Default 10s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may stay open without a request.
	// Default 60s.
	IdleTimeout time.Duration
}

// maxHeader is how many bytes a request's line and headers may have; net/http
// adds 4 KiB to it.
const maxHeader = 8 << 10

// Server serves the control protocol. Its methods may be called from several
// goroutines.
type Server struct {
	cfg    Config
	gate   *gate
	http   *http.Server
	ending chan struct{} // closed by Shutdown: ends the streams
	end    sync.Once
}

// NewServer makes a Server. It panics without a Service, which is a mistake in
// the program. It runs nothing until Serve.
func NewServer(cfg Config) *Server {
	if cfg.Service == nil {
		panic("control: NewServer without a Service")
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = 64
	}
	for _, d := range []struct {
		value *time.Duration
		byDef time.Duration
	}{
		{&cfg.RequestTimeout, 10 * time.Second},
		{&cfg.WriteTimeout, 10 * time.Second},
		{&cfg.IdleTimeout, 60 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.byDef
		}
	}
	s := &Server{
		cfg:    cfg,
		gate:   newGate(cfg.MaxConnections, uint32(os.Geteuid())),
		ending: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:        http.HandlerFunc(s.answer),
		ReadTimeout:    cfg.RequestTimeout, // of header and body together
		IdleTimeout:    cfg.IdleTimeout,
		MaxHeaderBytes: maxHeader,
		ConnContext:    withConn,
		ErrorLog:       cfg.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

// Serve serves the connections of l, which it owns and closes, until Shutdown.
// It then gives nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(s.gate.guard(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// Shutdown ends Serve, every stream of events and every connection without a
// whole request, waits for the requests in progress until ctx ends, and then
// closes what is left and says so.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end.Do(func() { close(s.ending) })
	s.gate.shut()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("end control server: requests in progress were cut: %w", err), s.http.Close())
	}
	return nil
}
