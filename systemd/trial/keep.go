package trial

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// keeper is a client that sends request after request on the one connection that
// it made first, and makes no other: that it ends is seen, where net/http would
// quietly ask again.
type keeper struct {
	conn  net.Conn
	done  atomic.Int64
	over  atomic.Bool // asked to end after the request of the moment
	ended chan struct{}
	err   error // how the connection ended; valid after ended
}

// keepAlive connects and begins to ask.
func keepAlive(t *testing.T, address string) *keeper {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{conn: conn, ended: make(chan struct{})}
	go k.run()
	t.Cleanup(func() { conn.Close(); <-k.ended })
	k.mustGoOn(t, "its start", 1)
	return k
}

// run ends with the connection, or when the keeper was asked to; finish and the
// test's end wait for it.
func (k *keeper) run() {
	defer close(k.ended)
	answers := bufio.NewReader(k.conn)
	for !k.over.Load() {
		if k.err = k.ask(answers); k.err != nil {
			return
		}
		k.done.Add(1)
	}
}

func (k *keeper) ask(answers *bufio.Reader) error {
	if _, err := fmt.Fprint(k.conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.HasPrefix(string(body), "v") {
		err = fmt.Errorf("answered with %q", body)
	}
	return err
}

// mustGoOn wants n more requests answered on the connection.
func (k *keeper) mustGoOn(t *testing.T, after string, n int64) {
	t.Helper()
	until := k.done.Load() + n
	await(t, "a connection that is kept to go on after "+after, func() bool {
		select {
		case <-k.ended:
			t.Fatalf("after %s a connection that is kept ended, with %v", after, k.err)
		default:
		}
		return k.done.Load() >= until
	})
}

// mustHaveBeenCut wants the connection to have ended as one does whose relay went.
func (k *keeper) mustHaveBeenCut(t *testing.T, by string) {
	t.Helper()
	await(t, "a relayed connection to end with "+by, func() bool {
		select {
		case <-k.ended:
			return true
		default:
			return false
		}
	})
	if k.err == nil || !endedInTheMiddle(k.err) {
		t.Errorf("a relayed connection ended with %v, by %s", k.err, by)
	}
}

// finish ends the connection after the request of the moment.
func (k *keeper) finish() {
	k.over.Store(true)
	<-k.ended
	_ = k.conn.Close()
}
