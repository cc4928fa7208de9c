package main

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
)

// slowLog is where a log goes that takes its time: it says that it is written to,
// and waits.
type slowLog struct{ writes, goOn chan struct{} }

func (l slowLog) Write(b []byte) (int, error) {
	l.writes <- struct{}{}
	<-l.goOn
	return len(b), nil
}

// The supervisor releases generations itself. That must not wait for another one
// that is being given its sockets, which may take as long as a connect does.
func TestReleaseDoesNotWaitForAStart(t *testing.T) {
	s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, hclog.NewNullLogger())
	slow := slowLog{make(chan struct{}), make(chan struct{})}
	s.direct = newDirectPath(hclog.New(&hclog.LoggerOptions{Output: slow})) // it says who is relayed
	opened := make(chan error)
	go func() { // ends with open
		_, err := s.open(1, &Config{}, backend.Launch{})
		opened <- err
	}()
	<-slow.writes
	released := make(chan struct{})
	go func() { // ends with release
		s.release(2)
		close(released)
	}()
	select {
	case <-released:
	case <-time.After(patience):
		t.Error("it waits for the sockets of another generation")
	}
	close(slow.goOn)
	if err := <-opened; err != nil {
		t.Error(err)
	}
	<-released
	s.release(1)
}

// Two that are started at once do not get one fixed address.
func TestFixedAddressesAreTakenOnce(t *testing.T) {
	s := newGenerationSockets(t.TempDir(), []string{"http"}, nil, hclog.NewNullLogger())
	s.direct = newDirectPath(hclog.NewNullLogger())
	c := &Config{}
	c.Backend.Unit = "nginx@{fixed}.service"
	c.Backend.Fixed = []FixedConfig{{Name: "a", Address: "127.0.0.1:8001"}, {Name: "b", Address: "127.0.0.1:8002"}}
	taken := make(chan string)
	for id := range uint64(2) {
		go func() { // ends with open
			k, err := s.open(id+1, c, backend.Launch{})
			if err != nil {
				t.Error(err)
				k = &keptSockets{}
			}
			taken <- k.fixed
		}()
	}
	names := []string{<-taken, <-taken}
	slices.Sort(names)
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("they have %v", names)
	}
}
