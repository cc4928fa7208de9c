package backend

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// soon are the times of a check where nothing waits for long.
func soon(r Readiness) Readiness {
	r.Interval, r.Timeout = time.Millisecond, 20*time.Millisecond
	return r
}

// TestConnectWantsItAccepted: on a queue that proxyd holds open a connect always
// succeeds, so as long as nobody accepts it is not ready.
func TestConnectWantsItAccepted(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": ""} {
		t.Run(network, func(t *testing.T) {
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			_, addresses := listen(t, network, address)
			var p *proof
			failed := false
			run := &checkedRun{addresses: addresses, waiting: func() int {
				// Once a try has failed for that, it accepts.
				if failed = strings.Contains(p.lastFailure(), `does not accept connections on "http" (3 wait in its queue)`); failed {
					return 0
				}
				return 3
			}}
			p = newProof(soon(Readiness{Check: CheckConnect}), run)
			if err := p.prove(t.Context()); err != nil {
				t.Error(err)
			}
			if !failed {
				t.Error("no try failed while some waited")
			}
		})
	}
}

// TestConnectWantsEveryListener: one that nobody listens on is enough to fail.
func TestConnectWantsEveryListener(t *testing.T) {
	dir := t.TempDir()
	_, addresses := listen(t, "unix", filepath.Join(dir, "http"))
	addresses["admin"] = &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "admin")}
	p := newProof(soon(Readiness{Check: CheckConnect}), &checkedRun{addresses: addresses})
	for range 20 { // in whatever order they are tried
		if err := p.try(t.Context()); err == nil || !strings.Contains(err.Error(), "admin") {
			t.Fatalf("error %v", err)
		}
	}
	listen(t, "unix", filepath.Join(dir, "admin"))
	if err := p.try(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGreeting: what a program wants in front of all else comes first, on the
// connections of both checks.
func TestGreeting(t *testing.T) {
	l, addresses := listen(t, "tcp", "127.0.0.1:0")
	heard := make(chan string)
	go func() { // ends when l is closed
		defer close(heard)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, len("HELLO\r\nGET"))
			n, _ := io.ReadFull(conn, b)
			io.WriteString(conn, "HTTP/1.0 204 No Content\r\n\r\n")
			conn.Close()
			heard <- string(b[:n])
		}
	}()
	for check, want := range map[Check]string{CheckConnect: "HELLO\r\n", CheckHTTP: "HELLO\r\nGET"} {
		r := Readiness{Check: check, Path: "/", Timeout: time.Minute, Greetings: map[string][]byte{"http": []byte("HELLO\r\n")}}
		done := make(chan error, 1)
		go func() { done <- newProof(r, &checkedRun{addresses: addresses}).try(t.Context()) }()
		if got := <-heard; got != want {
			t.Errorf("%s: the program heard %q", check, got)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", check, err)
		}
	}
	l.Close()
	<-heard
}

// TestDialOwnPort: a dial that was given the very port that it dials is no proof.
func TestDialOwnPort(t *testing.T) {
	l, _ := listen(t, "tcp", "127.0.0.1:0")
	if conn, err := dial(t.Context(), l.Addr()); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	l.Close()
	if conn, err := dial(t.Context(), l.Addr()); err == nil {
		conn.Close()
		t.Error("nobody listens there")
	}
}

func TestHTTPWants2xx(t *testing.T) {
	codes := []int{500, 404, 302, 200, 204} // 302 is not followed
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			var n atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path != "/healthz" || req.URL.RawQuery != "full=1" {
					t.Errorf("asked for %s", req.URL)
				}
				w.Header().Set("Location", "/")
				w.WriteHeader(codes[n.Add(1)-1])
			}))
			if network == "unix" {
				server.Listener.Close()
				server.Listener, _ = listen(t, "unix", filepath.Join(t.TempDir(), "s"))
			}
			server.Start()
			defer server.Close()
			run := &checkedRun{addresses: map[string]net.Addr{"http": server.Listener.Addr()}}
			r := soon(Readiness{Check: CheckHTTP, Path: "/healthz?full=1", Successes: 2})
			r.Timeout = time.Minute
			p := newProof(r, run)
			if err := p.prove(t.Context()); err != nil {
				t.Error(err)
			}
			if n.Load() != int64(len(codes)) {
				t.Errorf("ready after %d answers", n.Load())
			}
			if last := p.lastFailure(); last != "GET /healthz?full=1: 302 Found" {
				t.Errorf("it last said %q", last)
			}
		})
	}
}

// TestHTTPAsksTheFirstListener: by name, whatever order a map has.
func TestHTTPAsksTheFirstListener(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	_, silent := listen(t, "tcp", "127.0.0.1:0")
	p := newProof(soon(Readiness{Check: CheckHTTP, Path: "/"}), &checkedRun{
		addresses: map[string]net.Addr{"a": server.Listener.Addr(), "b": silent["http"]},
	})
	for range 10 {
		if err := p.get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHTTPThatNeverAnswers: a try ends with its timeout, and says so.
func TestHTTPThatNeverAnswers(t *testing.T) {
	_, addresses := listen(t, "tcp", "127.0.0.1:0")
	p := newProof(soon(Readiness{Check: CheckHTTP, Path: "/"}), &checkedRun{addresses: addresses})
	if err := p.try(t.Context()); err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestHTTPNeedsAnAddress(t *testing.T) {
	p := newProof(soon(Readiness{Check: CheckHTTP, Path: "/"}), &checkedRun{})
	if err := p.try(t.Context()); err == nil {
		t.Error("no error")
	}
}
