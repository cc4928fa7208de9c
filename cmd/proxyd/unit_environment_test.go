package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed8fae2174/proxyd/backend"
)

// No two generations have one environment file: what systemd makes of two units'
// names is the same for a few, of which one at a time is let in.
func TestNoTwoUnitsHaveOneEnvironmentFile(t *testing.T) {
	d := &systemdDriver{service: "web", sockets: &generationSockets{dir: t.TempDir()}, runs: map[string]*systemdRun{}}
	run := func(id uint64, release string) *systemdRun {
		return &systemdRun{driver: d, config: &Config{}, launch: backend.Launch{ID: id, Release: release}}
	}
	first := run(1, "a-b")
	for _, c := range []struct {
		unit    string
		run     *systemdRun
		refused bool
	}{
		{`web@a\x2db.service`, first, false},
		{`web@ax2db.service`, run(2, "ax2db"), true},
		{`web@a\x2db.service`, first, false}, // started again
		{`web@ab.service`, run(3, "ab"), false},
		{`web@a.b.service`, run(4, "a.b"), false},
		{`web@A\x2db.service`, run(5, "A-b"), false},
	} {
		if err := d.admit(c.unit, c.run); (err != nil) != c.refused {
			t.Fatalf("%s: %v", c.unit, err)
		}
		if c.refused {
			continue
		}
		if err := c.run.writeEnvironment(c.unit); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(d.sockets.dir, "*"))
	if err != nil || len(files) != len(d.runs) || len(files) != 4 {
		t.Errorf("%d units have the files %v, %v", len(d.runs), files, err)
	}
	for unit := range d.runs {
		if _, err := os.Stat(environmentPath(d.sockets.dir, unit)); err != nil {
			t.Error(err)
		}
	}
}
