package main

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// What a program does with its sockets decides where its next run and the next
// generations get theirs, and nothing does where nobody changes members, or where the
// config insists.
func TestSocketsThatDoNotFit(t *testing.T) {
	members, err := activation.ListenGroup("http", "127.0.0.1:0", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOwn(members)
	for _, c := range []struct {
		name            string
		reset, nonblock bool
		path            string
		check           string
		misfit          string
	}{
		{"it waits in accept", true, false, pathAuto, "", reasonBlocks},
		{"it may not have touched them yet", true, false, pathAuto, "command", ""},
		{"it does not", true, true, pathAuto, "", ""},
		{"the config insists", true, false, pathDirect, "", ""},
		{"nobody changes members", false, false, pathAuto, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := hclog.NewNullLogger()
			s := newGenerationSockets(shortTempDir(t), []string{"http"}, nil, log)
			d := newDirectPath(log)
			s.direct, d.direct, d.reset, d.moves = d, new(proxy.Direct), c.reset, true
			config := &Config{Backend: BackendConfig{Sockets: "activation", Path: c.path}, Ready: ReadyConfig{Check: c.check}}
			if err := s.makeDir(1); err != nil {
				t.Fatal(err)
			}
			s.kept[1] = &keptSockets{handed: members[1:2], member: 1}
			if err := unix.SetNonblock(members[1].FD, c.nonblock); err != nil {
				t.Fatal(err)
			}
			if got := s.misfit(1, config); got != c.misfit {
				t.Errorf("the reason is %q, not %q", got, c.misfit)
			}
			s.flags.flush()
			if c.misfit == "" {
				if d.keepsOff(config) {
					t.Error("the next one is kept off the direct path")
				}
				return
			}
			if _, member, why := d.lend(2, config); member != 0 || why != reasonBlocks {
				t.Errorf("the next one is lent member %d, %q", member, why)
			}
			// The next is relayed for that, and turns out to be of another kind, and not.
			s.kept[2] = &keptSockets{handed: members[2:3], why: reasonBlocks}
			d.note(2, reasonBlocks)
			for _, nonblock := range []bool{true, false} {
				if err := unix.SetNonblock(members[2].FD, nonblock); err != nil {
					t.Fatal(err)
				}
				if got := s.misfit(2, config); got != "" {
					t.Errorf("relayed, it should have other sockets for %q", got)
				}
				if d.isMoving(2) != nonblock || d.keepsOff(config) == nonblock {
					t.Errorf("set %v: it moves %v, and the next one is kept off %v", nonblock, d.isMoving(2), d.keepsOff(config))
				}
			}
			d.note(3, reasonNoMember)
			if d.isMoving(3) {
				t.Error("one is started again and again for a path that it is kept off")
			}
		})
	}
}
