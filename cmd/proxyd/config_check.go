package main

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend/control"
	"github.com/seed8fae2174/proxyd/proxy"
)

// Bounds of what a config may say.
const (
	maxDraining    = 1000
	maxSuccesses   = 1000
	maxConnections = 1 << 30 // the kernel's own bound of descriptors, fs.nr_open
)

// Validate checks everything that can be checked without the listeners that
// systemd passes (see CheckListeners). The error is ConfigErrors with all that
// is wrong, what was found while reading included.
func (c *Config) Validate() error {
	read := c.problems
	defer func() { c.problems = read }() // so that it can be asked again
	c.checkName()
	c.checkListeners()
	c.checkRules()
	c.checkBackend()
	c.checkPlaceholders()
	c.checkReady()
	c.checkStop()
	c.checkRanges()
	return c.problems.orNil()
}

// check notes a problem, unless one is known already at key.
func (c *Config) check(ok bool, key, message, hint string) {
	if !ok && !c.problems.has(key) {
		c.wrong(key, message, hint)
	}
}

func (c *Config) oneOf(key, value string, allowed ...string) {
	c.check(slices.Contains(allowed, value), key,
		fmt.Sprintf("%q is none of %s", value, strings.Join(quoteAll(allowed), ", ")), "")
}

func quoteAll(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return quoted
}

func (c *Config) checkName() {
	if err := activation.CheckName(c.Name); err != nil {
		hint := ""
		if !c.places.given("name") {
			hint = "it is taken from the file's name; give another with --name"
		}
		c.check(false, "name", err.Error(), hint)
	}
}

func (c *Config) checkListeners() {
	n := len(c.Listeners)
	c.check(n <= proxy.MostListeners, "listener", fmt.Sprintf("there are %d, and one proxyd takes %d", n, proxy.MostListeners), "")
	seen := map[string]bool{}
	for i, l := range c.Listeners {
		at := l.at(i)
		if err := activation.CheckName(l.Name); err != nil {
			c.check(false, at+".name", err.Error(), "")
		}
		if l.Address == "" && !c.places.given(at+".address") && c.places.flags["listener"] == "" {
			c.check(false, at+".address", "missing", `write address = "127.0.0.1:8080"`)
			continue
		}
		addr, err := activation.ParseAddress(l.Address)
		if err != nil {
			c.check(false, at+".address", err.Error(), "")
			continue
		}
		if tcp, ok := addr.(*net.TCPAddr); ok && tcp.Port == 0 {
			continue // the kernel gives each its own
		}
		c.check(!seen[addr.String()], at+".address", fmt.Sprintf("%q is listened on twice", l.Address), "")
		seen[addr.String()] = true
	}
}

func (c *Config) checkBackend() {
	b := c.Backend
	c.oneOf("backend.driver", b.Driver, "exec", "systemd")
	c.oneOf("backend.sockets", b.Sockets, "activation", "address")
	c.oneOf("backend.family", b.Family, "unix", "tcp")
	c.oneOf("backend.scope", b.Scope, "auto", "system", "user")
	c.oneOf("backend.path", b.Path, "auto", "relay", "direct")
	if b.Driver == "systemd" {
		c.checkUnit()
		for _, key := range []string{"command", "dir", "env"} {
			c.check(!c.places.given("backend."+key), "backend."+key, `is for driver "exec", and the driver is "systemd"`,
				"the unit says what runs")
		}
	} else if b.Driver == "exec" {
		for _, key := range []string{"unit", "scope", "fixed"} {
			c.check(!c.places.given("backend."+key), "backend."+key, `is for driver "systemd", and the driver is "exec"`, "")
		}
		c.checkCommand("backend.command", b.Command)
	}
	c.check(b.Dir == "" || path.IsAbs(b.Dir), "backend.dir", fmt.Sprintf("%q is not a whole path", b.Dir), "begin it with /")
	c.check(!hasNUL(b.Dir), "backend.dir", "holds a NUL byte", "")
	c.check(!b.NonBlocking || !c.BindsItself(), "backend.non_blocking",
		"is for a program that is handed its sockets, and this one binds by itself", "")
	for name, value := range b.Env {
		c.checkVariable(join("backend.env", name), name, value)
	}
	if err := control.CheckRelease(b.Release); err != nil {
		c.check(false, "backend.release", err.Error(), "")
	}
	if b.Path == "direct" {
		c.checkDirect()
	}
}

// checkCommand checks one argument list, apart from its placeholders.
func (c *Config) checkCommand(key string, argv []string) {
	if len(argv) == 0 {
		hint := `write command = ["PROGRAM", "ARGUMENT"]`
		if key == "backend.command" {
			hint += ", or give it after --"
		}
		message := "missing"
		if c.places.given(key) {
			message = "is empty"
		}
		c.check(false, key, message, hint)
		return
	}
	c.check(argv[0] != "", key+"[0]", "the program's name is empty", "")
	for i, arg := range argv {
		c.check(!hasNUL(arg), fmt.Sprintf("%s[%d]", key, i), "holds a NUL byte", "")
	}
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// checkVariable checks one variable of a generation's environment.
func (c *Config) checkVariable(key, name, value string) {
	plain := name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && (r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) && !unicode.IsDigit(rune(name[0]))
	c.check(plain, key, fmt.Sprintf("%q cannot name an environment variable", name), "")
	scrubbed := len(activation.ScrubEnv([]string{name + "="})) == 0
	ours := scrubbed || strings.HasPrefix(name, "PROXYD_") || name == "PORT" && c.BindsItself()
	c.check(!ours, key, name+" is set by proxyd itself", "")
	c.check(!hasNUL(value), key, "holds a NUL byte", "")
}

func (c *Config) checkReady() {
	r := c.Ready
	c.oneOf("ready.check", r.Check, "auto", "notify", "connect", "http", "command")
	c.check(strings.HasPrefix(r.Path, "/"), "ready.path", fmt.Sprintf("%q does not begin with /", r.Path), "")
	c.check(!strings.ContainsFunc(r.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }), "ready.path",
		fmt.Sprintf("%q holds a space or a control byte", r.Path), "write it as in a URL, %20 for a space")
	switch {
	case r.Check == "command":
		c.checkCommand("ready.command", r.Command)
	case slices.Contains([]string{"auto", "notify", "connect", "http"}, r.Check):
		c.check(!c.places.given("ready.command"), "ready.command",
			fmt.Sprintf("is for check \"command\", and the check is %q", r.Check), `write check = "command"`)
	}
}

// unfitSignals end nothing, or leave the program no say.
var unfitSignals = []string{"SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG"}

func (c *Config) checkStop() {
	name := c.Stop.Signal
	hint := `write it like "SIGTERM" or "SIGQUIT"`
	c.check(unix.SignalNum(name) != 0, "stop.signal", fmt.Sprintf("%q is not the name of a signal", name), hint)
	if name == "SIGKILL" {
		hint = `for no time to end, write timeout = "0s"`
	}
	c.check(c.Backend.Driver != "systemd" || !c.places.given("stop.signal"), "stop.signal",
		`is for driver "exec", and the driver is "systemd"`, "write KillSignal= in the unit")
	c.check(!slices.Contains(unfitSignals, name), "stop.signal", name+" does not ask a program to end", hint)
}

func (c *Config) checkRanges() {
	for key, d := range map[string]Duration{
		"ready.interval": c.Ready.Interval, "ready.timeout": c.Ready.Timeout, "ready.deadline": c.Ready.Deadline,
		"limits.connect_timeout": c.Limits.ConnectTimeout,
	} {
		c.check(d > 0, key, "must be longer than 0s", "")
	}
	c.between("ready.successes", c.Ready.Successes, 1, maxSuccesses)
	c.between("drain.max_draining", c.Drain.MaxDraining, 0, maxDraining)
	c.between("limits.max_connections", c.Limits.MaxConnections, 0, maxConnections)
}

func (c *Config) between(key string, n, least, most int) {
	c.check(least <= n && n <= most, key, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("it is from %d to %d", least, most))
}
