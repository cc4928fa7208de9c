package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says what a Server speaks for and how much it bears. Only Service must
// be set.
type Config struct {
	Service Service
	Log     hclog.Logger // nil: none

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

// Server serves the control protocol. Its methods may be called from several
// goroutines.
type Server struct {
	http *http.Server
}

// NewServer makes a Server. It panics without a Service. It runs nothing until
// Serve.
func NewServer(cfg Config) *Server {
	if cfg.Service == nil {
		panic("control: NewServer without a Service")
	}
	return &Server{http: &http.Server{ReadHeaderTimeout: cfg.RequestTimeout}}
}

// Serve serves the connections of l, which it owns and closes, until Shutdown.
// It then gives nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown ends Serve and every stream of events, waits for requests in progress
// until ctx ends, and then closes what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.http.Shutdown(ctx)
}
