package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/systemd"
)

const maxUnitName = 255 // UNIT_NAME_MAX of systemd

// FixedConfig is one address of a unit that knows nothing of proxyd: it listens
// there by its own configuration. A name stands for all that one generation
// takes; each generation takes a name that no other has.
type FixedConfig struct {
	Name     string `toml:"name"`     // what {fixed} in the unit's name becomes
	Listener string `toml:"listener"` // empty: the first one
	Address  string `toml:"address"`  // as activation.ParseAddress takes it
}

func (c *Config) checkUnit() {
	unit := c.Backend.Unit
	if unit == "" {
		c.check(false, "backend.unit", `missing, and driver "systemd" needs it`, `write unit = "web@{generation}.service"`)
		return
	}
	c.check(strings.HasSuffix(unit, ".service"), "backend.unit", fmt.Sprintf("%q is not a service unit", unit),
		"it ends with .service")
	c.check(len(unit) <= maxUnitName, "backend.unit", fmt.Sprintf("is %d bytes, a unit's name has at most %d", len(unit), maxUnitName), "")
	c.checkFixed()
	c.check(!strings.ContainsFunc(unit, func(r rune) bool {
		return !strings.ContainsRune(`:-_.\@{}`, r) && (r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}), "backend.unit", fmt.Sprintf("%q holds a character that no unit's name has", unit), "")
	if _, err := systemd.ParseTemplate(driverTemplate(unit)); err != nil && !c.problems.has("backend.unit") {
		_, why, _ := strings.Cut(err.Error(), systemd.ErrTemplate.Error()+": ")
		c.check(false, "backend.unit", fmt.Sprintf("%q: %s", unit, why), `write unit = "web@{generation}.service"`)
	}
}

// driverTemplate gives a unit's name as package systemd takes it, which knows
// {generation} and a label. The label is the name of the fixed addresses, where
// the unit is named by that.
func driverTemplate(unit string) string { return strings.Replace(unit, "{fixed}", "{release}", 1) }

// isUsers tells whether generations are units of the user's own systemd. By
// itself it is so where that one started proxyd (systemd.exec(5),
// $MANAGERPID).
func (b BackendConfig) isUsers() bool {
	return b.Scope == "user" || b.Scope == "auto" && os.Getenv("MANAGERPID") != ""
}

// The managers that units can be of.
const (
	scopeSystem = "system"
	scopeUser   = "user"
)

// scope is backend.scope with "auto" decided.
func (b BackendConfig) scope() string {
	if b.isUsers() {
		return scopeUser
	}
	return scopeSystem
}

// namedByFixed tells whether generations are units that are named by the
// addresses that they have.
func (b BackendConfig) namedByFixed() bool { return strings.Contains(b.Unit, "{fixed}") }

// fixedNames gives the names of the fixed addresses, in their order.
func (b BackendConfig) fixedNames() (names []string) {
	for _, f := range b.Fixed {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return names
}

// fixedAddresses gives the addresses of a name, by listener; first is the
// listener that is meant where none is said.
func (b BackendConfig) fixedAddresses(name, first string) map[string]string {
	addresses := map[string]string{}
	for _, f := range b.Fixed {
		if f.Name == name {
			addresses[cmp.Or(f.Listener, first)] = f.Address
		}
	}
	return addresses
}

// checkFixed checks the addresses of units that know nothing of proxyd.
func (c *Config) checkFixed() {
	b := c.Backend
	if !b.namedByFixed() {
		c.check(len(b.Fixed) == 0, "backend.fixed", "is given, and backend.unit does not name {fixed}",
			`write unit = "web@{fixed}.service"`)
		return
	}
	c.check(len(b.fixedNames()) > 1, "backend.unit", "{fixed} needs at least two names in [[backend.fixed]]: one generation runs beside another", "")
	c.check(!strings.Contains(b.Unit, "{release}") && !strings.Contains(b.Unit, "{generation}"), "backend.unit",
		"{fixed} is together with another placeholder, and the unit is to know nothing of proxyd", "")
	seen := map[string]string{}
	for i, f := range b.Fixed {
		at := fmt.Sprintf("backend.fixed[%d]", i)
		c.check(activation.CheckName(f.Name) == nil, at+".name", fmt.Sprintf("%q is not a name", f.Name), "")
		if f.Listener != "" {
			c.check(activation.CheckName(f.Listener) == nil, at+".listener", fmt.Sprintf("%q is not a listener's name", f.Listener), "")
		}
		addr, err := activation.ParseAddress(f.Address)
		if err != nil {
			c.check(false, at+".address", err.Error(), "")
			continue
		}
		tcp, isTCP := addr.(*net.TCPAddr)
		c.check(!isTCP || tcp.Port != 0 && !tcp.IP.IsUnspecified(), at+".address", fmt.Sprintf("%q is no address to connect to", f.Address), "")
		c.check(seen[addr.String()] == "", at+".address", fmt.Sprintf("%q is %s's already", f.Address, seen[addr.String()]), "")
		seen[addr.String()] = f.Name
	}
}

// checkFixedServe finds listeners that a name of the fixed addresses leaves out,
// and addresses for listeners that there are not.
func (c *Config) checkFixedServe(listeners []string) {
	for _, name := range c.Backend.fixedNames() {
		addresses := c.Backend.fixedAddresses(name, listeners[0])
		for _, l := range listeners {
			c.check(addresses[l] != "", "backend.fixed", fmt.Sprintf("%q has no address for listener %q", name, l), "")
			delete(addresses, l)
		}
		for _, l := range slices.Sorted(maps.Keys(addresses)) {
			c.check(false, "backend.fixed", fmt.Sprintf("%q has an address for listener %q, which there is not", name, l), "")
		}
	}
}
