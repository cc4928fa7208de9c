package main

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/proxy"
)

// Only what is wrong with the listeners' groups keeps a generation on the relay
// for good: whatever else kept it from a member passes, and it moves then.
func TestOnlyABrokenGroupKeepsAGenerationOnTheRelay(t *testing.T) {
	d := newDirectPath(nil)
	d.direct, d.moves = new(proxy.Direct), true
	broken := fmt.Errorf("check member 1: %w", proxy.ErrGroup)
	for _, c := range []struct {
		err   error
		moves bool
	}{
		{proxy.ErrNoMember, true},
		{fmt.Errorf("bind: %w", unix.EADDRINUSE), true},
		{fmt.Errorf("open sock_diag: %w", unix.EMFILE), true},
		{broken, false},
		{errors.Join(broken, unix.EMFILE), false},
	} {
		d.note(3, lendReason(c.err))
		if d.isMoving(3) != c.moves {
			t.Errorf("%v: moves %v", c.err, d.isMoving(3))
		}
	}
}
