package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed8fae2174/proxyd/proxy"
)

// trustUnix in accept_proxy means every client of a unix listener, as in
// nginx's set_real_ip_from.
const trustUnix = "unix:"

// at is where the listener stands in the file, for errors.
func (l ListenerConfig) at(i int) string {
	if l.key != "" {
		return l.key
	}
	return fmt.Sprintf("listener[%d]", i)
}

// takeRules splits what the file says of listeners. One with an address is
// opened where systemd passes none. What is said of the PROXY protocol holds for
// the listeners of that name, whoever opens them: a [[listener]] of systemd's
// has no address.
func (c *Config) takeRules() {
	var own []ListenerConfig
	for i, l := range c.Listeners {
		l.key = fmt.Sprintf("listener[%d]", i)
		rule := c.places.given(l.key+".proxy_protocol") || c.places.given(l.key+".accept_proxy")
		if rule {
			c.rules = append(c.rules, l)
		}
		if !rule || c.places.given(l.key+".address") {
			own = append(own, l)
		}
	}
	c.Listeners = own
}

func (c *Config) checkRules() {
	for i, r := range c.rules {
		if c.places.given(r.at(i) + ".proxy_protocol") {
			c.oneOf(r.at(i)+".proxy_protocol", r.ProxyProtocol, "v1", "v2")
		}
		for j, text := range r.AcceptProxy {
			if _, err := parseTrusted(text); err != nil {
				c.check(false, fmt.Sprintf("%s.accept_proxy[%d]", r.at(i), j), err.Error(), `write an address or a network, or "unix:" for unix clients`)
			}
		}
		c.check(c.Backend.Path != "direct", "backend.path", fmt.Sprintf(
			`"direct" cannot be where listener %q speaks the PROXY protocol: nobody would write the header or read it`, r.Name), `write path = "auto"`)
	}
	// A generation has one socket for all listeners of a name, and must know
	// what comes in on it.
	said := map[string]ListenerConfig{}
	for i, l := range append(slices.Clone(c.rules), c.Listeners...) {
		first, ok := said[l.Name]
		if !ok {
			said[l.Name] = l
			continue
		}
		c.check(first.ProxyProtocol == l.ProxyProtocol && slices.Equal(first.AcceptProxy, l.AcceptProxy), l.at(i),
			fmt.Sprintf("says other things of the PROXY protocol than the first listener %q", l.Name),
			"write the same proxy_protocol and accept_proxy for both, or give it another name")
	}
}

// parseTrusted takes 10.0.0.0/8, 2001:db8::7 or unix:, for which the network is
// not valid.
func parseTrusted(text string) (netip.Prefix, error) {
	if text == trustUnix {
		return netip.Prefix{}, nil
	}
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("%q is not an IP address", text)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a network", text)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network in IPv6's clothes, and no client is", text)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its mask, the network is %s", text, p.Masked())
	}
	return p, nil
}

// applyRules gives each of the listeners that there are what the file says of
// its name. A rule for a name that nobody has is an error: what it says would be
// lost in silence.
func (c *Config) applyRules(rules []ListenerConfig) {
	for i, r := range rules {
		found := false
		for j := range c.Listeners {
			if l := &c.Listeners[j]; l.Name == r.Name {
				l.ProxyProtocol, l.AcceptProxy = r.ProxyProtocol, r.AcceptProxy
				found = true
			}
		}
		if !found && len(c.Listeners) > 0 {
			c.check(false, r.at(i), fmt.Sprintf("there is no listener %q for what is said of the PROXY protocol", r.Name),
				"there are: "+strings.Join(c.listenerNames(), ", "))
		}
	}
}

// forProxy gives what a listener does with headers of the PROXY protocol, in
// the data path's terms.
func (l ListenerConfig) forProxy() (version int, trusted []netip.Prefix, unix bool) {
	for _, text := range l.AcceptProxy {
		if p, err := parseTrusted(text); err == nil && p.IsValid() {
			trusted = append(trusted, p)
		}
		unix = unix || text == trustUnix
	}
	return l.proxyVersion(), trusted, unix
}

func (l ListenerConfig) proxyVersion() int {
	return slices.Index([]string{"", "v1", "v2"}, l.ProxyProtocol)
}

// greetings is what a connection to a generation begins with where proxyd makes
// it itself, to prove that it is ready: a program that expects a PROXY header
// takes nothing without one.
func (c *Config) greetings() map[string][]byte {
	all := map[string][]byte{}
	for _, l := range c.Listeners {
		if l.ProxyProtocol != "" {
			all[l.Name] = proxy.LocalHeader(l.proxyVersion())
		}
	}
	return all
}
