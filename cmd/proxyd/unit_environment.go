package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed8fae2174/proxyd/backend"
)

// What a unit is told of its generation: `proxyctl exec` sets it, and a unit
// that binds by itself reads it with
//
//	EnvironmentFile=/run/proxyd/web/generation-%i.env

type variable struct{ name, value string }

// environment gives the variables of a run: who it is, and where it binds
// itself PORT and ADDRESS of its first listener and PORT_NAME and ADDRESS_NAME
// of each. A name is written in capitals, with _ for what a variable's name
// cannot hold.
func (r *systemdRun) environment() []variable {
	env := []variable{
		{"PROXYD_SERVICE", r.driver.service},
		{"PROXYD_GENERATION", strconv.FormatUint(r.launch.ID, 10)},
		{"PROXYD_RELEASE", r.launch.Release},
	}
	if !r.config.BindsItself() {
		return env
	}
	for i, name := range r.driver.sockets.listeners {
		ends := []string{"_" + variableName(name)}
		if i == 0 {
			ends = append(ends, "")
		}
		for _, end := range ends {
			a := r.kept.addresses[name]
			if tcp, ok := a.(*net.TCPAddr); ok {
				env = append(env, variable{"PORT" + end, strconv.Itoa(tcp.Port)})
			}
			env = append(env, variable{"ADDRESS" + end, textAddress(a)})
		}
	}
	return env
}

func variableName(listener string) string {
	return strings.Map(func(c rune) rune {
		if c == '.' || c == '-' {
			return '_'
		}
		return c
	}, strings.ToUpper(listener))
}

// checkVariables finds listeners whose variables have one name.
func (c *Config) checkVariables(listeners []string) {
	named := map[string]string{}
	for _, l := range listeners {
		other, taken := named[variableName(l)]
		c.check(!taken || other == l, "listener", fmt.Sprintf("%q and %q are both PORT_%s to a program that binds by itself", other, l, variableName(l)),
			"give one of them another name")
		named[variableName(l)] = l
	}
}

// environmentPath is where systemd looks for generation-%i.env. It takes the path
// for a pattern (glob(7)), so the backslashes of an escaped %i are no part of the
// file's name. So a few units share a path (a\x2db, ax2db), of which admit lets one
// be at a time.
func environmentPath(dir, unit string) string {
	_, i, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	return filepath.Join(dir, "generation-"+strings.ReplaceAll(i, `\`, "")+".env")
}

// writeEnvironment writes the file for a unit, quoted as EnvironmentFile= in
// systemd.exec(5) has it.
func (r *systemdRun) writeEnvironment(unit string) error {
	var b strings.Builder
	for _, v := range r.environment() {
		fmt.Fprintf(&b, "%s=\"%s\"\n", v.name, environmentQuoter.Replace(v.value))
	}
	if err := os.WriteFile(environmentPath(r.driver.sockets.dir, unit), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write environment file: %w", err)
	}
	return nil
}

// restoreEnvironment writes the file again where it went with the runtime directory,
// for whoever looks, or starts the unit by hand.
func (r *systemdRun) restoreEnvironment() {
	if r.kept.stranded != "" { // there is nothing to be told of it any more
		return
	}
	unit := r.unit.Name()
	if _, err := os.Lstat(environmentPath(r.driver.sockets.dir, unit)); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := r.writeEnvironment(unit); err != nil {
		r.driver.log.Warn("cannot write a generation's environment file again", "generation", r.launch.ID, "error", err)
	}
}

var environmentQuoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`)

func removeEnvironment(dir, unit string) { _ = os.Remove(environmentPath(dir, unit)) }

// sweepEnvironments removes the files of units that are none of ours any more.
func (d *systemdDriver) sweepEnvironments() error {
	paths, err := filepath.Glob(filepath.Join(d.sockets.dir, "generation-*.env"))
	keep := map[string]bool{}
	d.mu.Lock()
	for unit := range d.runs {
		keep[environmentPath(d.sockets.dir, unit)] = true
	}
	d.mu.Unlock()
	for _, p := range paths {
		if !keep[p] {
			err = errors.Join(err, os.Remove(p))
		}
	}
	return err
}

// runNote is what is written down beside a generation's sockets for the case
// that the durable state is lost: a unit's name need not tell all of it.
type runNote struct {
	Generation uint64          `json:"generation"`
	Release    string          `json:"release"`
	Identity   systemdIdentity `json:"identity"`
}

const noteName = "run.json"

func (d *systemdDriver) noteRun(l backend.Launch, identity json.RawMessage) error {
	b, err := json.Marshal(struct {
		Generation uint64          `json:"generation"`
		Release    string          `json:"release"`
		Identity   json.RawMessage `json:"identity"`
	}{l.ID, l.Release, identity})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.sockets.genDir(l.ID), noteName), b, 0o600); err != nil {
		return fmt.Errorf("write note of a run: %w", err)
	}
	return nil
}

// readNotes gives the notes that can be read, for one that was cut short helps
// nobody, and what lose keeps in mind.
func (d *systemdDriver) readNotes() (notes []runNote) {
	paths, _ := filepath.Glob(filepath.Join(d.sockets.dir, "gen-*", noteName))
	for _, p := range paths {
		var n runNote
		if b, err := os.ReadFile(p); err == nil && json.Unmarshal(b, &n) == nil {
			notes = append(notes, n)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lost {
		if !slices.ContainsFunc(notes, func(n runNote) bool { return n.Identity.Unit == l.Identity.Unit }) {
			notes = append(notes, l)
		}
	}
	return notes
}
