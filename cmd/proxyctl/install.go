package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
	"github.com/seed8fae2174/proxyd/systemd/units"
)

func (a *app) install() *cobra.Command {
	var o installing
	c := &cobra.Command{
		Use:   "install NAME --listen ADDRESS",
		Short: "Put proxyd's units and rules in place for a service",
		Long: `Puts in place what systemd needs to run proxyd for the service NAME: this
program and the proxyd beside it in PREFIX/bin, proxyd@.service and proxyd@.socket
with the addresses to listen on, the user proxyd, and the polkit rule that lets it
start and stop the units that are generations and no other. It starts nothing, and
may be run again: for another service, or with other addresses or units.

Generations are units of the template NAME@.service, numbered. Where backend.unit
in the config says otherwise, say the same with --unit; for NAME@{fixed}.service
say each unit's own name.

With --user it is for your own systemd (systemctl --user), needs no root and puts
everything below ~/.config/systemd/user.

What is then to do is said at the end. ` + "`proxyctl uninstall NAME`" + ` takes it away again.`,
		Example: `  proxyctl install web --listen 443
  proxyctl install web --listen 443 --members 12
  proxyctl install web --listen 127.0.0.1:8080 --listen [::1]:8080 --unit 'app@{release}.service'
  proxyctl install web --listen 443 --unit nginx@blue.service --unit nginx@green.service
  proxyctl install --user web --listen 127.0.0.1:8080`,
	}
	f := c.Flags()
	f.StringArrayVar(&o.listen, "listen", nil, "`ADDRESS` as in ListenStream= of systemd.socket(5); may be repeated; none where you have a .socket of your own")
	f.IntVar(&o.members, "members", 1, "`N` sockets for each address, under ReusePort=yes: with 3 of them two generations, with more two fewer than these, can take their clients straight from the kernel")
	f.StringVar(&o.template, "template", "", "`NAME` before the @ of the units that are generations (default: that of the service)")
	f.StringArrayVar(&o.units, "unit", nil, "`UNIT` that is a generation, with {generation}, {release} or its own name after the @; may be repeated (default TEMPLATE@{generation}.service)")
	f.StringVar(&o.driver, "driver", "systemd", "systemd, or exec for generations that are children of proxyd")
	f.BoolVar(&o.user, "user", false, "for your own systemd instead of the machine's")
	f.StringVar(&o.prefix, "prefix", "/usr/local", "the programs go to `DIR`/bin")
	return a.verb(c, 1, func(_ context.Context, args []string) error {
		if len(args) == 0 {
			return usage("install: say the NAME of the service")
		}
		o.name = args[0]
		if err := o.check(); err != nil {
			return err
		}
		return a.doInstall(o)
	})
}

// mostSockets is how many one proxyd takes (proxy.MostListeners).
const mostSockets = 64

// installing is what install is told.
type installing struct {
	name, template, driver, prefix string
	listen, units                  []string
	members                        int
	user                           bool
	chosen                         bool // the template was said, and is not just the service's name
}

func (o *installing) check() error {
	if err := control.CheckName(o.name); err != nil {
		return usage("service: %v", err)
	}
	if err := o.checkUnits(); err != nil {
		return err
	}
	if o.driver != "systemd" && o.driver != "exec" {
		return usage("--driver: want systemd or exec, got %q", o.driver)
	}
	if !filepath.IsAbs(o.prefix) {
		return usage("--prefix: %q is not a whole path", o.prefix)
	}
	if o.members != 1 && (o.members < 3 || o.members > 32) {
		return usage("--members: %d is out of range: 1, or 3 to 32", o.members)
	}
	if n := o.members * len(o.listen); n > mostSockets {
		return usage("--members: %d for each of %d addresses are %d sockets, and one proxyd takes %d", o.members, len(o.listen), n, mostSockets)
	}
	for _, l := range o.listen {
		if o.members > 1 && strings.ContainsRune(l, '/') {
			return usage("--members: %q is a unix socket, of which there is one", l)
		}
		if l == "" || strings.ContainsFunc(l, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return usage("--listen: %q is not an address", l)
		}
	}
	if !o.user && os.Geteuid() != 0 {
		return &control.Error{Code: control.NotPermitted, Message: "only root may install for the whole machine",
			Hint: "--user is for your own systemd"}
	}
	return nil
}

// checkUnits finds out what generations are called.
func (o *installing) checkUnits() error {
	if len(o.units) == 0 {
		o.chosen = o.template != ""
		o.template = cmp.Or(o.template, o.name)
		if err := control.CheckName(o.template); err != nil {
			return usage("--template: %v", err)
		}
		o.units = []string{o.template + "@{generation}.service"}
		if _, err := units.Template(o.units[0]); err != nil && o.driver == "systemd" {
			return usage("--template: %v; name another", err)
		}
		return nil
	}
	o.chosen = true
	if o.template != "" {
		return usage("--template: --unit names it")
	}
	for _, u := range o.units {
		template, err := units.Template(u)
		if err != nil {
			return usage("--unit: %v", err)
		}
		o.template = cmp.Or(o.template, template) // the first is what the config is said to name
	}
	return nil
}

// doInstall writes everything. What it has written is noted before, so that
// uninstall finds it also where this fails half-way.
func (a *app) doInstall(o installing) error {
	places, err := placesFor(o.user, o.prefix)
	if err != nil {
		return err
	}
	notes, err := readNotes(places.notes)
	if err != nil {
		return err
	}
	for _, template := range templatesOf(o.units) {
		if other := notes.userOf(template, o.name); other != "" && o.driver == "systemd" {
			return &control.Error{Code: control.Failed, Message: fmt.Sprintf("the units of %s@.service are service %s's", template, other),
				Hint: "a template is one service's alone: name another with --template"}
		}
	}
	if path := places.packaged(o.template); path != "" && !o.chosen && o.driver == "systemd" {
		return &control.Error{Code: control.Failed, Message: fmt.Sprintf("%s is there already, and not of your own", path),
			Hint: fmt.Sprintf("`--template %s` is for when its units shall be the generations; for any other purpose name another", o.template)}
	}
	s := notes.Services[o.name] // of an earlier install: its directories and its socket are ours
	if s.Left, err = places.leave(o, s); err != nil {
		return err
	}
	s.Units, s.Driver, s.Listens = o.units, o.driver, s.Listens || len(o.listen) > 0
	execConf := filepath.Join(places.units, "proxyd@"+o.name+".service.d", "exec.conf")
	if i := slices.Index(s.Files, execConf); i >= 0 && o.driver != "exec" { // it opens the sandbox
		if err := os.Remove(execConf); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what an earlier install wrote: %w", err)
		}
		s.Files = slices.Delete(s.Files, i, i+1)
	}
	var own []file
	moved := false
	if dir := filepath.Join(places.units, "proxyd@"+o.name+".socket.d"); len(o.listen) > 0 {
		f := file{path: filepath.Join(dir, "listen.conf"), text: units.Listen(o.listen, o.members)}
		now, err := os.ReadFile(f.path)
		moved = err != nil || string(now) != f.text
		own = append(own, f)
	}
	if o.driver == "exec" {
		own = append(own, file{path: execConf, text: units.ExecDriver()})
	}
	for _, f := range own {
		noteFile(&s.Files, &s.Dirs, f.path)
	}
	notes.Services[o.name] = s
	notes.Purgeable = slices.DeleteFunc(notes.Purgeable, func(name string) bool { return name == o.name })
	notes.User = notes.User || places.makesUser()
	shared, err := places.shared(notes.generations())
	if err != nil {
		return err
	}
	for _, f := range shared {
		noteFile(&notes.Files, &notes.Dirs, f.path)
	}
	noteFile(new([]string), &notes.Dirs, places.notes)
	if err := notes.write(places.notes); err != nil {
		return err
	}
	for _, f := range append(shared, own...) {
		if err := f.write(); err != nil {
			return err
		}
	}
	if err := places.settle(); err != nil {
		return err
	}
	a.say("service %s is installed", o.name)
	switch left := strings.Join(unitNames(s.Left), " "); {
	case left != "" && o.driver == "systemd":
		a.remark("these of before run on until they are replaced, and proxyd may end them: %s", left)
	case left != "":
		a.remark("these run on, and proxyd does not take them over: end them with `systemctl stop %s`", left)
	}
	a.remark("%s", places.next(o, s.Listens))
	if !moved {
		return nil
	}
	state, err := places.ask("show", "-P", "ActiveState", "--", "proxyd@"+o.name+".socket")
	if err == nil && state == "active" {
		a.remark("%s", places.apply(o.name, s))
	}
	return err
}

// leave gives the generations that run and are called otherwise than those after
// this install. proxyd takes them over and is to end them, so the rule names each.
func (p places) leave(o installing, before installed) ([]started, error) {
	all, err := p.generations(o.name, before)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(u started) bool {
		was := slices.Contains(before.Left, u) || units.Matches(before.Units, u.Unit)
		return !was || o.driver == "systemd" && units.Matches(o.units, u.Unit)
	}), nil
}

// next says what is to be done after install. Without addresses the sockets are
// those of a unit that the user wrote.
func (p places) next(o installing, listens bool) string {
	ctl, unit := p.ctl(), p.units+"/"+o.template+"@.service"
	start := fmt.Sprintf("%s enable --now proxyd@%s.socket proxyd@%s.service", ctl, o.name, o.name)
	if !listens {
		start = fmt.Sprintf("start your socket unit, and then %s enable --now proxyd@%s.service", ctl, o.name)
	}
	if o.driver == "exec" {
		return fmt.Sprintf("next: write %s/%s.toml, then %s", p.config, o.name, start)
	}
	return fmt.Sprintf("next: write %s/%s.toml with unit = %q, and %s; then %s daemon-reload and %s", p.config, o.name, o.unit(), unit, ctl, start)
}

// apply says how a socket that is open takes other addresses. systemd does not open
// it while proxyd runs, and generations that have sockets of their own on the direct
// path would listen on where it was.
func (p places) apply(name string, s installed) string {
	stop := fmt.Sprintf("%s stop proxyd@%s.socket proxyd@%s.service", p.ctl(), name, name)
	if s.Driver == "systemd" {
		for _, u := range s.allowed() {
			stop += " '" + placeholder.ReplaceAllString(u, "*") + "'"
		}
	}
	return fmt.Sprintf("proxyd@%s.socket listens where it did before; to apply the addresses, end all and start it: `%s` and `%s start proxyd@%s.service`",
		name, stop, p.ctl(), name)
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// unit is what backend.unit in the config is to say.
func (o installing) unit() string {
	if strings.ContainsRune(o.units[0], '{') {
		return o.units[0]
	}
	return o.template + "@{fixed}.service"
}
