package main

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
)

// A member that is waited for keeps nobody from giving up the sockets of another
// generation: the supervisor does that, and would switch nothing meanwhile.
func TestALendThatWaitsHoldsUpNobody(t *testing.T) {
	s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, hclog.NewNullLogger())
	s.direct = newDirectPath(hclog.NewNullLogger())
	if _, err := s.open(1, &Config{}, backend.Launch{}); err != nil {
		t.Fatal(err)
	}
	waits, goOn := make(chan struct{}), make(chan struct{})
	s.lend = func(uint64, *Config) ([]activation.Listener, int, string) {
		close(waits)
		<-goOn
		return nil, 0, reasonNoMember
	}
	opened := make(chan error)
	go func() { // ends with the open, which the test waits for
		_, err := s.open(2, &Config{}, backend.Launch{})
		opened <- err
	}()
	<-waits
	s.release(1)
	close(goOn)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if len(s.kept) != 1 || s.kept[2] == nil {
		t.Errorf("kept: %v", s.kept)
	}
	s.release(2)
}
