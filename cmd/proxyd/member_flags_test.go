package main

import (
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
)

// What systemd does to a member's O_NONBLOCK when it starts proxyd is undone, in
// both directions; where nothing was noted it is left as it is.
func TestAMembersFlagsArePutBack(t *testing.T) {
	members, err := activation.ListenGroup("http", "127.0.0.1:0", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOwn(members)
	s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, hclog.NewNullLogger())
	fd := members[1].FD
	blocks := func() bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return flags&unix.O_NONBLOCK == 0
	}
	if err := os.MkdirAll(s.genDir(1), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, nonblock := range []bool{true, false} {
		if err := unix.SetNonblock(fd, nonblock); err != nil {
			t.Fatal(err)
		}
		s.restoreFlags(2, fd) // of which nothing is noted
		if blocks() == nonblock {
			t.Errorf("nothing noted: blocks is %v", blocks())
		}
		s.noteFlags(1, fd)
		s.flags.flush()
		if err := unix.SetNonblock(fd, !nonblock); err != nil {
			t.Fatal(err)
		}
		s.restoreFlags(1, fd)
		if blocks() == nonblock {
			t.Errorf("noted %v: blocks is %v", nonblock, blocks())
		}
	}
}
