package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// listenerGroup is the sockets of one address of one listener.
type listenerGroup struct {
	name    string
	address net.Addr
	members []activation.Listener
}

func (g listenerGroup) fds() (fds []int) {
	for _, l := range g.members {
		fds = append(fds, l.FD)
	}
	return fds
}

// groupsOf sorts the listeners by name and address, each in its order.
func groupsOf(listeners []activation.Listener) (groups []*listenerGroup) {
next:
	for _, l := range listeners {
		for _, g := range groups {
			if g.name == l.Name && g.address.Network() == l.Addr.Network() && g.address.String() == l.Addr.String() {
				g.members = append(g.members, l)
				continue next
			}
		}
		groups = append(groups, &listenerGroup{l.Name, l.Addr, []activation.Listener{l}})
	}
	return groups
}

// Reasons for the relay, as status and the log say them.
const (
	reasonUnix  = "unix listener"
	reasonBinds = "backend binds by itself"
	reasonPath  = `path = "relay"`
	// reasonNoMember is the one that passes, while proxyd runs. There may be one
	// that could not be proven to be in its place.
	reasonNoMember = "no free member"
	// reasonBlocks is a program's, and reasonBlocked another one's after it: see fit.go.
	reasonBlocks  = "blocking accept"
	reasonBlocked = "blocking accept of the release before"
	// reasonOtherUID: a single socket could be made a group, by its owner alone.
	reasonOtherUID = "other uid"
)

// Members of one address: one to hold, one for each generation that may run, and a
// spare one, which is never lent where there are more than fewestMembers.
const (
	fewestMembers = 3  // the least that a promote can do with
	mostMade      = 16 // that proxyd makes
	restMembers   = 5  // beside those that drain: hold, current, standby, next, spare
)

// wantsRelay says what in the config keeps clients on the relay; empty: nothing
// does. What only the relay can do counts, where it is asked for.
func (c *Config) wantsRelay() string {
	limits := []struct {
		asked bool
		key   string
	}{
		{c.Limits.MaxConnections > 0, "limits.max_connections"},
		{c.Limits.IdleTimeout > 0, "limits.idle_timeout"},
		{c.Limits.HalfCloseTimeout > 0, "limits.half_close_timeout"},
		{c.places.given("backend.family"), "backend.family"},
	}
	switch {
	case c.Backend.Path == pathRelay:
		return reasonPath
	case c.BindsItself():
		return reasonBinds
	}
	if len(c.rules) > 0 {
		return fmt.Sprintf("listener %q speaks the PROXY protocol", c.rules[0].Name)
	}
	for _, l := range limits {
		if l.asked {
			return l.key + " is for the relay"
		}
	}
	return ""
}

// relayReason says what keeps every generation on the relay: the config, or
// what the listeners are. The error names what is to be changed: where the
// config insists on the direct path, and where a .socket unit's lines are of
// unequal number, which nobody can mean.
func (c *Config) relayReason(groups []*listenerGroup) (why string, err error) {
	if len(groups) == 0 {
		return "", nil
	}
	why = c.wantsRelay()
	most := groups[0]
	unixes := 0
	for _, g := range groups {
		if g.address.Network() == "unix" {
			unixes++
		}
		if len(g.members) > len(most.members) {
			most = g
		}
	}
	own := groups[0].members[0].Source == activation.SourceProxyd
	switch {
	case unixes > 0 && why == "":
		why = reasonUnix
	case unixes == 0 && !own:
		for _, g := range groups {
			if err := c.checkLines(g, len(most.members)); err != nil {
				return "", err
			}
		}
		if len(most.members) == 1 && why == "" {
			why = whySingle(groups)
		}
	case own && c.Backend.Driver == "systemd" && why == "":
		// Units outlive proxyd, and then nobody would hold the groups.
		why = "the listeners are not a .socket unit's"
	case own && slices.ContainsFunc(groups, func(g *listenerGroup) bool { return len(g.members) < fewestMembers }) && why == "":
		return "not every address has a group of sockets", nil
	}
	if c.Backend.Path == pathDirect && why != "" {
		return "", fmt.Errorf(`backend.path: "direct" cannot be: %s; write path = "auto"`, why)
	}
	return why, nil
}

// whySingle says why sockets of a .socket unit that are one for each address are no
// groups. proxyd adds none to a group of its own user's either: they would end with
// proxyd, and the indexes of those that generations have would change.
func whySingle(groups []*listenerGroup) string {
	for _, g := range groups {
		l := g.members[0]
		if shares, err := l.Shares(); err != nil || !shares {
			break
		}
		if uid, err := l.Owner(); err == nil && uid != os.Geteuid() {
			return fmt.Sprintf("%s: the socket at %s is uid %d's, and proxyd, uid %d, can add none to it; repeat the line ListenStream= for each generation",
				reasonOtherUID, g.address, uid, os.Geteuid())
		}
	}
	return "the .socket unit has no ReusePort=yes with a ListenStream= line for each generation"
}

// checkLines checks how often a .socket unit repeats the line of one address.
func (c *Config) checkLines(g *listenerGroup, most int) error {
	want := most
	if most == 1 && c.Backend.Path != pathDirect {
		return nil // an ordinary unit
	}
	if want < fewestMembers {
		want = max(fewestMembers, min(c.Drain.MaxDraining+restMembers, mostMade))
	}
	if len(g.members) == want {
		return nil
	}
	times := "once more"
	if n := want - len(g.members); n > 1 {
		times = fmt.Sprintf("%d more times", n)
	}
	return fmt.Errorf("listener %q: the .socket unit passes %d of the %d sockets that generations need at %s: add the line ListenStream=%s to it %s, under ReusePort=yes",
		g.name, len(g.members), want, g.address, strings.TrimPrefix(g.address.String(), "unix:"), times)
}

// membersToMake is how many sockets proxyd opens for each address of its own;
// 1 where the config keeps everything on the relay.
func (c *Config) membersToMake() int {
	if c.wantsRelay() != "" || c.Backend.Driver == "systemd" {
		return 1
	}
	for _, l := range c.Listeners {
		if strings.HasPrefix(l.Address, "unix:") {
			return 1
		}
	}
	draining := c.Drain.MaxDraining
	if draining == 0 {
		draining = mostMade
	}
	n := min(draining+restMembers, mostMade, proxy.MostListeners/max(len(c.Listeners), 1))
	if n < fewestMembers {
		return 1
	}
	return n
}
