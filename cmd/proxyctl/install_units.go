package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/systemd/units"
)

// started is a unit that a proxyd has started as a generation.
type started struct {
	Unit string `json:"unit"`
	// Invocation is systemd's id of that run, "" where proxyd did not come to know
	// it. What runs under another is somebody else's.
	Invocation string `json:"invocation,omitempty"`
}

// maxNote is far more than proxyd writes down of a run.
const maxNote = 64 << 10

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\][A-Za-z0-9:_.\\@-]*\.service$`)

// noted gives the units that proxyd has written down as its generations, in
// RUNTIME/NAME/gen-N/run.json. These files are proxyd's, and root may read them
// here: nothing in there leads out of the directory or makes it wait, and what is
// no unit's name is passed over.
func (p places) noted(name string) (list []started, err error) {
	root, err := os.OpenRoot(filepath.Join(p.runtime, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for generations: %w", err)
	}
	defer root.Close()
	paths, err := fs.Glob(root.FS(), "gen-*/run.json")
	if err != nil {
		return nil, fmt.Errorf("look for generations: %w", err)
	}
	for _, path := range paths {
		f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // it is gone
		}
		var note struct {
			Identity started `json:"identity"`
		}
		b, err := io.ReadAll(io.LimitReader(f, maxNote))
		f.Close()
		if err == nil && json.Unmarshal(b, &note) == nil && unitName.MatchString(note.Identity.Unit) {
			list = append(list, note.Identity)
		}
	}
	return list, nil
}

// running gives those of list that run as they were started, each once.
func (p places) running(list []started) (running []started, err error) {
	for _, s := range list {
		now, err := p.ask("show", "-P", "InvocationID", "--", s.Unit)
		if err != nil {
			return nil, err
		}
		known := slices.ContainsFunc(running, func(r started) bool { return r.Unit == s.Unit })
		if now != "" && !known && (s.Invocation == "" || s.Invocation == now) {
			running = append(running, started{s.Unit, now})
		}
	}
	return running, nil
}

// mayEnd tells whether a noted unit is one that install let proxyd start. As root
// nothing else is touched on proxyd's word; a user's proxyd may do what the user
// may.
func (p places) mayEnd(s installed, unit string) bool {
	return p.user || units.Matches(s.allowed(), unit)
}

// generations gives the units that run and that a service has started, those of
// an earlier install as well.
func (p places) generations(name string, s installed) ([]started, error) {
	noted, err := p.noted(name)
	if err != nil {
		return nil, err
	}
	noted = slices.DeleteFunc(noted, func(n started) bool { return !p.mayEnd(s, n.Unit) })
	return p.running(append(noted, s.Left...))
}

// allowed is what proxyd may start and end for a service, as units.Rules takes it.
func (s installed) allowed() []string { return slices.Concat(s.Units, unitNames(s.Left)) }

// templatesOf gives what is before the "@" of units, each once.
func templatesOf(list []string) (templates []string) {
	for _, unit := range list {
		if t, err := units.Template(unit); err == nil && !slices.Contains(templates, t) {
			templates = append(templates, t)
		}
	}
	return templates
}

// others gives the units of a service's templates that run and are not in list.
func (p places) others(s installed, list []started) (names []string, err error) {
	ask := []string{"list-units", "--plain", "--no-legend", "--state=active,activating,reloading", "--"}
	for _, t := range templatesOf(s.allowed()) {
		ask = append(ask, strings.ReplaceAll(t, `\`, `\\`)+"@*.service") // a pattern, see glob(7)
	}
	out, err := p.ask(ask...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" && !slices.Contains(unitNames(list), name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func unitNames(list []started) (names []string) {
	for _, s := range list {
		names = append(names, s.Unit)
	}
	return names
}
