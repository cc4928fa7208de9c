package main

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend/control"
)

// askRunning is how long a running proxyd is given to say where it listens.
const askRunning = 5 * time.Second

// checkAddresses tries every address that proxyd would listen on itself. That
// the proxyd which runs this service has it already is as it should be: a check
// beside it is the usual case.
func (c *checking) checkAddresses(ctx context.Context) error {
	if os.Getenv("LISTEN_FDS") != "" {
		return nil // systemd's are used
	}
	if len(c.config.Listeners) == 0 {
		c.say("note", "no listener is configured, so proxyd starts only where systemd passes its sockets (a .socket unit); else give --listen ADDRESS or a [[listener]]")
		return nil
	}
	var running *runningProxyd
	for i, l := range c.config.Listeners {
		err := activation.Probe(l.Address)
		if errors.Is(err, activation.ErrInUse) {
			if running == nil {
				running = askForListeners(ctx, control.SocketIn(c.runtimeDir))
			}
			switch {
			case running.has(l.Address):
				c.say("note", "%s is in use by the proxyd that runs this service", l.Address)
				continue
			case running.there && running.err != nil:
				c.say("note", "%s is in use, perhaps by the proxyd that runs this service: %v", l.Address, running.err)
				continue
			case c.leftOver(l):
				c.say("note", "%s is held by generations of a proxyd that is gone, from which the next takes it over", l.Address)
				continue
			}
		}
		if err != nil {
			c.config.wrong(l.at(i)+".address", err.Error(), addressHint(err))
		}
	}
	return c.config.takeProblems()
}

// leftOver tells whether the generations of a proxyd that was killed hold the
// sockets of l, so that the next proxyd finds them there.
func (c *checking) leftOver(l ListenerConfig) bool {
	known, err := readGroups(c.runtimeDir, c.stateDir)
	if err != nil {
		return false
	}
	before := groupOf(l, known)
	found, err := recoverOwn(l, before, nil)
	// What cannot be looked at may still be in use by generations, as it is here.
	return closeOwn(found) == nil && before != nil && (err == nil || errors.Is(err, activation.ErrHeldInPart))
}

func addressHint(err error) string {
	if errors.Is(err, activation.ErrInUse) {
		return "if it is a .socket unit of this service that listens there, leave the address out"
	}
	return ""
}

// runningProxyd is what the proxyd behind a control socket says of itself.
type runningProxyd struct {
	there     bool // somebody answers, or is there and may not be asked
	err       error
	listeners []control.Listener
}

func askForListeners(ctx context.Context, socket string) *runningProxyd {
	ctx, cancel := context.WithTimeout(ctx, askRunning)
	defer cancel()
	st, err := control.NewClient(socket).Status(ctx)
	return &runningProxyd{there: !errors.Is(err, control.ErrNotRunning), err: err, listeners: st.Listeners}
}

// has tells whether it listens on address.
func (r *runningProxyd) has(address string) bool {
	for _, l := range r.listeners {
		if sameAddress(l.Address, address) {
			return true
		}
	}
	return false
}

// sameAddress compares two texts of ParseAddress: ":80" is "[::]:80", or
// "0.0.0.0:80" on a host without IPv6.
func sameAddress(a, b string) bool {
	x, err1 := activation.ParseAddress(a)
	y, err2 := activation.ParseAddress(b)
	if err1 != nil || err2 != nil {
		return false
	}
	if xt, ok := x.(*net.TCPAddr); ok {
		yt, ok := y.(*net.TCPAddr)
		every := func(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
		return ok && xt.Port == yt.Port && (xt.IP.Equal(yt.IP) && xt.Zone == yt.Zone || every(xt.IP) && every(yt.IP))
	}
	return x.Network() == y.Network() && x.String() == y.String()
}
