package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/systemd"
)

// leftDriver is a driver with a generation 1 that has a note and sockets, and no
// systemd.
func leftDriver(t *testing.T) *systemdDriver {
	t.Helper()
	log := hclog.NewNullLogger()
	d := &systemdDriver{
		sockets: newGenerationSockets(shortTempDir(t), []string{"http"}, nil, log), log: log,
		runs: map[string]*systemdRun{}, left: map[uint64]*leftover{}, ending: make(chan struct{}),
	}
	d.sockets.direct = newDirectPath(log)
	if _, err := d.sockets.open(1, &Config{}, backend.Launch{}); err != nil {
		t.Fatal(err)
	}
	identity, err := json.Marshal(systemdIdentity{Identity: systemd.Identity{Unit: "web@1.service"}})
	if err == nil {
		err = d.noteRun(backend.Launch{ID: 1, Release: "v1"}, identity)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What a generation has is not given to another while something of it may run, and
// the next proxyd finds it by its note.
func TestWhatIsLeftKeepsItsSocketsAndNote(t *testing.T) {
	d := leftDriver(t)
	gone := []chan struct{}{make(chan struct{}), make(chan struct{})}
	for _, c := range gone {
		d.keepLeft(1, fmt.Errorf("start: %w", &systemd.LeftError{Unit: "web@1.service", Err: errors.New("no bus"), Gone: c}))
	}
	d.keepLeft(2, errors.New("another error"))
	d.Release(1)
	d.Release(1) // the supervisor may say so twice
	over := d.left[1].over
	close(gone[0])
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.awaitLeft(canceled, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("it is started again: %v", err)
	}
	if d.sockets.kept[1] == nil || len(d.readNotes()) != 1 {
		t.Error("it was released while something of it may run")
	}
	close(gone[1])
	if err := d.awaitLeft(t.Context(), 1); err != nil {
		t.Error(err)
	}
	<-over
	if d.sockets.kept[1] != nil || len(d.readNotes()) != 0 {
		t.Error("it is never released")
	}
	if _, err := os.Stat(d.sockets.genDir(1)); !os.IsNotExist(err) {
		t.Error("its directory is there:", err)
	}
	if err := errors.Join(d.awaitLeft(t.Context(), 1), d.awaitLeft(t.Context(), 2)); err != nil || len(d.left) != 0 {
		t.Errorf("%v is left, %v", d.left, err)
	}
}

// One that is started again waits for what was left of its last run, and keeps its
// sockets.
func TestAStartWaitsForWhatIsLeft(t *testing.T) {
	d := leftDriver(t)
	defer d.sockets.release(1)
	gone := make(chan struct{})
	d.keepLeft(1, &systemd.LeftError{Gone: gone})
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := d.awaitLeft(late, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("it did not wait:", err)
	}
	close(gone)
	if err := d.awaitLeft(t.Context(), 1); err != nil || d.sockets.kept[1] == nil {
		t.Errorf("%v, its sockets are %v", err, d.sockets.kept[1])
	}
}

// proxyd ends without waiting for it, and leaves the note.
func TestProxydEndsBeforeWhatIsLeft(t *testing.T) {
	d := leftDriver(t)
	d.keepLeft(1, &systemd.LeftError{Gone: make(chan struct{})})
	d.Release(1)
	close(d.ending)
	d.calls.Wait()
	if len(d.readNotes()) != 1 {
		t.Error("the next proxyd will not know of it")
	}
	d.sockets.release(1)
}
