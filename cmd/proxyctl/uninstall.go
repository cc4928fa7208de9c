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
config, the state and the history go as well, and with the last service the user
proxyd.`,
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

func (a *app) doUninstall(p places, name string, purge bool) error {
	notes, err := readNotes(p.notes)
	if err != nil {
		return err
	}
	s, ok := notes.Services[name]
	if !ok {
		return &control.Error{Code: control.Failed, Message: fmt.Sprintf("service %s was not installed by `proxyctl install`", name)}
	}
	others, err := p.end(name, s)
	if err != nil {
		return err
	}
	gone := s.Files
	trees := []string{filepath.Join(p.runtime, name)}
	if purge {
		trees = append(trees, filepath.Join(p.state, name), filepath.Join(filepath.Dir(p.notes), name))
		gone = append(gone, filepath.Join(p.config, name+".toml"))
	}
	delete(notes.Services, name)
	last := len(notes.Services) == 0
	if last {
		gone = append(gone, notes.Files...)
		gone = append(gone, p.notes)
	} else if err := p.narrow(notes); err != nil {
		return err
	}
	var errs []error
	for _, f := range gone {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, tree := range trees {
		errs = append(errs, os.RemoveAll(tree))
	}
	dirs := s.Dirs
	if last {
		dirs = append(append(dirs, notes.Dirs...), p.runtime, p.state, p.config)
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) }) // the inner before the outer
	for _, dir := range dirs {
		_ = os.Remove(dir) // where it is empty
	}
	if last {
		if _, err := user.Lookup("proxyd"); err == nil && purge && !p.user {
			errs = append(errs, runTool("userdel", "proxyd"))
		}
	}
	errs = append(errs, p.systemctl("daemon-reload"))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.say("service %s is uninstalled", name)
	if len(others) > 0 {
		a.remark("service %s has not started these, which run on: %s", name, strings.Join(others, " "))
	}
	return nil
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

// narrow takes a service out of the notes and of the polkit rule.
func (p places) narrow(n *notes) error {
	if err := n.write(p.notes); err != nil {
		return err
	}
	if p.user {
		return nil
	}
	return file{path: rulesPath, text: units.Rules(n.generations())}.write()
}
