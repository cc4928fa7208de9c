package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
	"github.com/seed8fae2174/proxyd/systemd/units"
)

func (a *app) uninstall() *cobra.Command {
	var user, purge bool
	c := &cobra.Command{
		Use:   "uninstall NAME",
		Short: "End a service and take away what install put in place",
		Long: `Stops the sockets, proxyd and all generations of the service NAME, and no unit
that it has not started. Removes what install put in place for it; with the last
service also the programs, units, rules and directories that all have in common.
Connections are cut.

What you wrote yourself stays: the config and your template unit. With --purge the
config, the state and the history go as well, also later, when the service is
uninstalled already; and with the last service the user proxyd, where install has
made it. What fails half-way may be run again.`,
		Example: `  proxyctl uninstall web
  proxyctl uninstall --purge web`,
	}
	c.Flags().BoolVar(&user, "user", false, "from your own systemd instead of the machine's")
	c.Flags().BoolVar(&purge, "purge", false, "also remove config, state and history")
	return a.verb(c, 1, func(_ context.Context, args []string) error {
		if len(args) == 0 {
			return usage("uninstall: say the NAME of the service")
		}
		if err := control.CheckName(args[0]); err != nil {
			return usage("service: %v", err)
		}
		if !user && os.Geteuid() != 0 {
			return &control.Error{Code: control.NotPermitted, Message: "only root may uninstall from the whole machine",
				Hint: "--user is for your own systemd"}
		}
		p, err := placesFor(user, "/")
		if err != nil {
			return err
		}
		return a.doUninstall(p, args[0], purge)
	})
}

// doUninstall takes away a service. Each step is noted once it is done, so that what
// failed half-way can be asked for again, and a purge be asked for later.
func (a *app) doUninstall(p places, name string, purge bool) error {
	notes, err := readNotes(p.notes)
	if err != nil {
		return err
	}
	s, installed := notes.Services[name]
	left := slices.Contains(notes.Purgeable, name)
	switch {
	case !installed && !left:
		return &control.Error{Code: control.Failed, Message: fmt.Sprintf("service %s was not installed by `proxyctl install`", name)}
	case !installed && !purge && (len(notes.Services) > 0 || len(notes.Files) == 0):
		return &control.Error{Code: control.Failed, Message: fmt.Sprintf("service %s is uninstalled already", name),
			Hint: "--purge also removes its config, state and history"}
	}
	var others []string
	if installed {
		if others, err = p.end(name, s); err != nil {
			return err
		}
		if err := errors.Join(removeFiles(s.Files), os.RemoveAll(filepath.Join(p.runtime, name))); err != nil {
			return err
		}
		removeEmpty(s.Dirs)
		delete(notes.Services, name)
		notes.Purgeable = append(notes.Purgeable, name)
		if err := p.narrow(notes); err != nil {
			return err
		}
	}
	if purge {
		if err := p.purge(name); err != nil {
			return err
		}
	}
	if len(notes.Services) == 0 {
		err = p.endLast(notes, name, purge)
	}
	if err := errors.Join(err, p.systemctl("daemon-reload")); err != nil {
		return errors.Join(err, notes.write(p.notes))
	}
	if len(notes.Services) == 0 {
		notes.Files = nil
	}
	notes.Purgeable = slices.DeleteFunc(notes.Purgeable, func(n string) bool {
		return purge && (n == name || len(notes.Services) == 0 && p.isPurged(n))
	})
	if err := p.forget(notes); err != nil {
		return err
	}
	a.say("service %s is uninstalled", name)
	if len(others) > 0 {
		a.remark("service %s has not started these, which run on: %s", name, strings.Join(others, " "))
	}
	return nil
}

// purge removes what a service and its operator wrote.
func (p places) purge(name string) error {
	return errors.Join(os.RemoveAll(filepath.Join(p.state, name)), os.RemoveAll(filepath.Join(filepath.Dir(p.notes), name)),
		removeFiles([]string{filepath.Join(p.config, name+".toml")}))
}

// isPurged says that a service has left nothing. It may have been removed by hand.
func (p places) isPurged(name string) bool {
	for _, path := range []string{filepath.Join(p.state, name), filepath.Join(p.config, name+".toml")} {
		if _, err := os.Lstat(path); err == nil {
			return false
		}
	}
	return true
}

// endLast removes what services have in common, as there is none any more, and with
// the last state that is purged the user that it belonged to.
func (p places) endLast(n *notes, name string, purge bool) error {
	if err := removeFiles(n.Files); err != nil {
		return err
	}
	stays := slices.ContainsFunc(n.Purgeable, func(other string) bool { return other != name && !p.isPurged(other) })
	if !purge || stays || !n.User {
		return nil
	}
	if _, err := user.Lookup("proxyd"); err == nil {
		if err := runTool("userdel", "proxyd"); err != nil {
			return err
		}
	}
	n.User = false
	return nil
}

// forget writes the notes, or removes them where they say nothing any more, and then
// the directories that are empty.
func (p places) forget(n *notes) error {
	var err error
	if len(n.Services)+len(n.Files)+len(n.Purgeable) > 0 {
		err = n.write(p.notes)
	} else {
		err = removeFiles([]string{p.notes})
	}
	if len(n.Services) == 0 {
		removeEmpty(append(n.Dirs, p.runtime, p.state, p.config))
	}
	return err
}

func removeFiles(paths []string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeEmpty removes those directories that are empty, the inner before the outer.
func removeEmpty(dirs []string) {
	dirs = slices.SortedFunc(slices.Values(dirs), func(a, b string) int { return len(b) - len(a) })
	for _, dir := range dirs {
		_ = os.Remove(dir)
	}
}

// end stops everything of a service: sockets first, so that no client starts it
// again, then proxyd, then the units that it has started. Other units of the
// template run on; those are given.
func (p places) end(name string, s installed) (others []string, err error) {
	for _, kind := range []string{"socket", "service"} {
		if kind == "socket" {
			if err := p.endOwnSockets(name); err != nil {
				return nil, err
			}
			if !s.Listens {
				continue
			}
		}
		if _, err := os.Stat(filepath.Join(p.units, "proxyd@."+kind)); err != nil {
			continue // install did not get that far
		}
		if err := p.systemctl("disable", "--now", "proxyd@"+name+"."+kind); err != nil {
			return nil, err
		}
	}
	list, err := p.generations(name, s)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		if err := p.systemctl(append([]string{"stop", "--"}, unitNames(list)...)...); err != nil {
			return nil, err
		}
		for _, unit := range unitNames(list) {
			// What its KillMode= spares would go on serving. One of which nothing is left
			// is not loaded any more, which is the error.
			_ = p.systemctl("kill", "--signal=KILL", "--", unit)
		}
	}
	if s.Driver == "exec" { // proxyd has ended them
		return nil, nil
	}
	return p.others(s, list)
}

// endOwnSockets stops the sockets that are the user's own and start proxyd. What
// the user wrote stays, but with a client it would start proxyd again.
func (p places) endOwnSockets(name string) error {
	by, err := p.ask("show", "-P", "TriggeredBy", "--", "proxyd@"+name+".service")
	if err != nil {
		return err
	}
	own := slices.DeleteFunc(strings.Fields(by), func(unit string) bool { return unit == "proxyd@"+name+".socket" })
	if len(own) == 0 {
		return nil
	}
	return p.systemctl(append([]string{"stop", "--"}, own...)...)
}

// narrow writes the notes without a service, and the polkit rule where one is left.
func (p places) narrow(n *notes) error {
	if err := n.write(p.notes); err != nil {
		return err
	}
	if p.user || len(n.Services) == 0 {
		return nil
	}
	return file{path: rulesPath, text: units.Rules(n.generations())}.write()
}
