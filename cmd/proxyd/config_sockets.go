package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// What each placeholder stands for. Those of an address make a command one that
// binds by itself, at that address.
var (
	tcpWords   = []string{"port", "address"} // 8080; 127.0.0.1:8080
	unixWords  = []string{"socket"}          // the path of a unix socket
	plainWords = []string{"release", "generation"}
)

// use is a placeholder and the key of the text that it stands in.
type use struct {
	key string
	placeholder
}

// uses lists the placeholders of one text. A malformed one ends the list; it is
// reported by checkPlaceholders.
func uses(key, text string) (list []use, err error) {
	err = scan(text, func(string) {}, func(p placeholder) error {
		list = append(list, use{key, p})
		return nil
	})
	return list, err
}

// programTexts gives what a generation is started with: key and text of the
// command's arguments and of its environment.
func (c *Config) programTexts() [][2]string {
	texts := argumentTexts("backend.command", c.Backend.Command)
	for _, name := range slices.Sorted(maps.Keys(c.Backend.Env)) {
		texts = append(texts, [2]string{join("backend.env", name), c.Backend.Env[name]})
	}
	return texts
}

func argumentTexts(key string, argv []string) [][2]string {
	texts := make([][2]string, len(argv))
	for i, arg := range argv {
		texts[i] = [2]string{fmt.Sprintf("%s[%d]", key, i), arg}
	}
	return texts
}

// socketUses lists where command and environment name an address.
func (c *Config) socketUses() (list []use) {
	for _, t := range c.programTexts() {
		found, _ := uses(t[0], t[1])
		for _, u := range found {
			if isSocketWord(u.word) {
				list = append(list, u)
			}
		}
	}
	return list
}

func isSocketWord(word string) bool {
	return slices.Contains(tcpWords, word) || slices.Contains(unixWords, word)
}

// BindsItself says whether a generation binds its addresses itself, rather than
// being handed listening sockets: where its command or its environment names
// {port}, {address} or {socket}, or backend.sockets is "address" (the program
// then finds its port in the variable PORT), or its addresses are fixed.
func (c *Config) BindsItself() bool {
	return c.Backend.Sockets == "address" || len(c.Backend.Fixed) > 0 || len(c.socketUses()) > 0
}

// WantsTCP says whether a generation serves listener on a loopback TCP port
// rather than on a unix socket. What the command names decides, then
// backend.family.
func (c *Config) WantsTCP(listener string) bool {
	list := c.socketUses()
	var own, first []use
	for _, u := range list {
		switch u.listener {
		case listener:
			own = append(own, u)
		case "":
			first = append(first, u)
		}
	}
	if len(own) == 0 && c.isFirst(listener) {
		own = first
	}
	if len(own) > 0 {
		return slices.Contains(tcpWords, own[0].word)
	}
	return c.Backend.Family == "tcp" || c.Backend.Sockets == "address" && len(list) == 0
}

// isFirst says whether {port} without a name means listener. Where only systemd
// knows the listeners, it may.
func (c *Config) isFirst(listener string) bool {
	return len(c.Listeners) == 0 || c.Listeners[0].Name == listener
}

func (c *Config) listenerNames() (names []string) {
	for _, l := range c.Listeners {
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	return names
}

// checkPlaceholders checks every text that may hold some.
func (c *Config) checkPlaceholders() {
	all := slices.Concat(plainWords, tcpWords, unixWords)
	for _, t := range append(c.programTexts(), argumentTexts("ready.command", c.Ready.Command)...) {
		c.checkWords(t[0], t[1], all)
	}
	c.checkWords("backend.dir", c.Backend.Dir, plainWords)
	c.checkWords("backend.unit", c.Backend.Unit, append([]string{"fixed"}, plainWords...))
	c.checkSameKind()
	c.checkReadyAddresses()
	if b := c.Backend; c.BindsItself() && len(c.socketUses()) == 0 && c.places.given("backend.family") {
		c.check(b.Family == "tcp", "backend.family", `"unix" cannot be, for nothing tells the program its socket`,
			"name {socket} in the command")
	}
	if len(c.Listeners) > 0 {
		c.checkServed(c.listenerNames())
	}
}

func (c *Config) checkWords(key, text string, allowed []string) {
	list, err := uses(key, text)
	if err != nil {
		c.check(false, key, fmt.Sprintf("%q holds %s", text, err), "")
		return
	}
	for _, u := range list {
		known := slices.Contains(allowed, u.word) && (u.listener == "" || isSocketWord(u.word))
		c.check(known, key, fmt.Sprintf("unknown placeholder %s", u),
			fmt.Sprintf("known here: {%s}; {{ and }} stand for braces", strings.Join(allowed, "}, {")))
		if known && u.listener != "" && len(c.Listeners) > 0 {
			names := c.listenerNames()
			c.check(slices.Contains(names, u.listener), key, fmt.Sprintf("%s names no listener", u),
				"there are: "+strings.Join(names, ", "))
		}
	}
}

// checkSameKind finds listeners that are asked for both as TCP and as unix.
func (c *Config) checkSameKind() {
	kinds := map[string]use{}
	for _, u := range c.socketUses() {
		listener := u.listener
		if listener == "" && len(c.Listeners) > 0 {
			listener = c.Listeners[0].Name
		}
		other, ok := kinds[listener]
		if !ok {
			kinds[listener] = u
		}
		same := !ok || slices.Contains(tcpWords, other.word) == slices.Contains(tcpWords, u.word)
		c.check(same, u.key, fmt.Sprintf("%s and %s cannot both be: one is TCP, the other a unix socket", other, u), "")
		family := map[bool]string{true: "tcp", false: "unix"}[slices.Contains(tcpWords, u.word)]
		if c.places.given("backend.family") && c.Backend.Family != family {
			c.check(false, "backend.family", fmt.Sprintf("%q cannot be, for %s names %s", c.Backend.Family, u.key, u), "leave it out")
		}
	}
}

// checkReadyAddresses checks that what the readiness command names is what a
// generation has.
func (c *Config) checkReadyAddresses() {
	for _, t := range argumentTexts("ready.command", c.Ready.Command) {
		list, _ := uses(t[0], t[1])
		for _, u := range list {
			listener := u.listener
			if listener == "" && len(c.Listeners) > 0 {
				listener = c.Listeners[0].Name
			}
			if !isSocketWord(u.word) || listener == "" {
				continue
			}
			tcp := c.WantsTCP(listener)
			c.check(tcp == slices.Contains(tcpWords, u.word), u.key,
				fmt.Sprintf("%s is unknown: generations serve listener %q on a %s", u, listener,
					map[bool]string{true: "TCP port", false: "unix socket"}[tcp]),
				map[bool]string{true: "write {address} or {port}", false: `write {socket}, or family = "tcp" in [backend]`}[tcp])
		}
	}
}

// checkServed finds listeners that no generation would serve: a program that
// binds by itself must be told every address.
func (c *Config) checkServed(names []string) {
	list := c.socketUses()
	if !c.BindsItself() || len(names) == 0 {
		return
	}
	if len(c.Backend.Fixed) > 0 {
		c.checkFixedServe(names)
		return
	}
	if c.Backend.Driver == "systemd" {
		c.checkVariables(names)
		return // its environment file names each
	}
	if len(list) == 0 {
		c.check(len(names) == 1, "backend.sockets", `"address" tells a program one port, in PORT, and there are `+
			fmt.Sprintf("%d listeners", len(names)), "name {port:LISTENER} in the command for each")
		return
	}
	for i, name := range names {
		served := slices.ContainsFunc(list, func(u use) bool { return u.listener == name || u.listener == "" && i == 0 })
		c.check(served, list[0].key, fmt.Sprintf("names %s, so the program binds by itself, and is not told where for listener %q",
			list[0], name), fmt.Sprintf("name {port:%s}, {address:%s} or {socket:%s} as well", name, name, name))
	}
}

// checkDirect checks what can be told of path "direct" without the sockets.
func (c *Config) checkDirect() {
	const key = "backend.path"
	c.check(!c.BindsItself(), key, `"direct" needs a program that is handed its sockets, and this one binds by itself`,
		`write path = "auto"`)
	for limit, set := range map[string]bool{
		"limits.max_connections":    c.Limits.MaxConnections > 0,
		"limits.idle_timeout":       c.Limits.IdleTimeout > 0,
		"limits.half_close_timeout": c.Limits.HalfCloseTimeout > 0,
		"backend.family":            c.places.given("backend.family"),
	} {
		c.check(!set, limit, `holds for the relay only, and backend.path is "direct"`, `leave it out, or write path = "auto"`)
	}
	for _, l := range c.Listeners {
		_, isUnix := strings.CutPrefix(l.Address, "unix:")
		c.check(!isUnix, key, fmt.Sprintf(`"direct" needs TCP listeners, and %q is a unix socket`, l.Name), `write path = "auto"`)
	}
}

// tooManySockets says what is to be changed where systemd passes more than can be
// taken.
func tooManySockets(listeners []activation.Listener) string {
	groups := len(groupsOf(listeners))
	if most := proxy.MostListeners / groups; most >= fewestMembers && groups < len(listeners) {
		return fmt.Sprintf("there are %d addresses: write the ListenStream= line of each at most %d times in the .socket unit (proxyctl install --members %d), and start that again", groups, most, most)
	}
	return "give some of the addresses to a proxyd of their own"
}

// CheckListeners checks the configuration against the listeners that there
// really are, in their order, once systemd's are known: those that the command
// names must exist, and each must be served. It takes their place in c, so that
// {port} means the first of them.
func (c *Config) CheckListeners(listeners []activation.Listener) error {
	real := *c
	real.problems, real.Listeners = nil, nil
	for _, l := range listeners {
		address := l.Addr.String()
		if _, ok := l.Addr.(*net.UnixAddr); ok {
			address = "unix:" + address
		}
		real.Listeners = append(real.Listeners, ListenerConfig{Name: l.Name, Address: address})
	}
	if len(listeners) == 0 {
		real.problems = ConfigErrors{c.places.problem("listener", "there is none",
			"start proxyd from a .socket unit, or give --listen ADDRESS or a [[listener]]")}
	}
	if n := len(listeners); n > proxy.MostListeners {
		real.problems = ConfigErrors{c.places.problem("listener",
			fmt.Sprintf("systemd passes %d sockets, and one proxyd takes %d", n, proxy.MostListeners),
			tooManySockets(listeners))}
	}
	real.applyRules(c.rules)
	real.checkPlaceholders()
	if real.Backend.Path == "direct" {
		real.checkDirect()
	}
	if err := real.problems.orNil(); err != nil {
		return err
	}
	c.Listeners = real.Listeners
	return nil
}
