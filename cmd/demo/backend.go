package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The long download: so many pieces, one each interval.
var (
	downloadPieces   = 120
	downloadInterval = 100 * time.Millisecond
)

// downloadPiece gives the i-th piece, so that both ends know what it must be.
func downloadPiece(i int) string { return fmt.Sprintf("piece %04d of %04d\n", i+1, downloadPieces) }

// fails says whether a release answers requests with errors: none does, but in a
// test of what the demo makes of that.
var fails = func(release string) bool { return false }

// runBackend is the service of the demo: an ordinary HTTP server on the socket
// that it was handed (LISTEN_FDS), as it would be under systemd. Release v3 is
// the broken one: it starts, but never becomes healthy.
func runBackend(release string) error {
	f := os.NewFile(3, "listener") // sd_listen_fds(3): the first one passed
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("use handed-over socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		if fails(release) {
			http.Error(w, "fault", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, release)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if release == "v3" {
			http.Error(w, "no database", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /download", download)
	if release == "v3" {
		fmt.Println("connecting to the database at db.internal ...")
		fmt.Println("fatal-ish: schema 7 wanted, schema 6 found; retrying for ever")
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go closeAtEnd(ctx, server)
	if err := server.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// closeAtEnd ends the server, and with it the process, at the stop signal.
func closeAtEnd(ctx context.Context, server *http.Server) {
	<-ctx.Done()
	server.Close()
}

func download(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(downloadInterval)
	defer tick.Stop()
	for i := range downloadPieces {
		fmt.Fprint(w, downloadPiece(i))
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}
