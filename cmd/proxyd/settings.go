package main

import (
	"errors"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
)

// What the config says, in the terms of the packages it is for.

func policyOf(c *Config) backend.Policy {
	return backend.Policy{
		ReadyDeadline: c.Ready.Deadline.D(),
		Probation:     c.Promote.Probation.D(),
		DrainDeadline: c.Drain.Deadline.D(),
		KeepPrevious:  c.Drain.KeepPrevious.D(),
		StopTimeout:   c.Stop.Timeout.D(),
		// The end of proxyd is the operator's wish: what is in flight gets as
		// long as a generation gets to stop.
		ShutdownDrain: c.Stop.Timeout.D(),
		MaxDraining:   c.Drain.MaxDraining,
	}
}

func readinessOf(c *Config) backend.Readiness {
	return backend.Readiness{
		Check:     backend.Check(c.Ready.Check),
		Path:      c.Ready.Path,
		Command:   c.Ready.Command,
		Interval:  c.Ready.Interval.D(),
		Timeout:   c.Ready.Timeout.D(),
		Successes: c.Ready.Successes,
		Greetings: c.greetings(),
	}
}

// openListeners takes the sockets that systemd passes, or else opens those of
// the config, and checks the config against what there is. held are those of a proxyd
// before, which it borrows, and dirs are where it writes its own ones down. stored are
// the generations' sockets that an earlier proxyd left with systemd.
func openListeners(c *Config, held []int, log hclog.Logger, dirs ...string) (listeners, stored []activation.Listener, err error) {
	if listeners, stored, err = activation.Inherited(); err != nil {
		return nil, nil, err
	}
	if len(listeners) == 0 {
		if listeners, err = openOwn(c, held, log, dirs...); err != nil {
			return nil, nil, errors.Join(err, closeOwn(listeners))
		}
	}
	if err := c.CheckListeners(listeners); err != nil {
		return nil, nil, errors.Join(err, closeOwn(listeners))
	}
	return listeners, stored, nil
}

// closeOwn closes the listeners that proxyd opened; those that it was given are
// closed by nobody.
func closeOwn(listeners []activation.Listener) error {
	var errs []error
	for _, l := range listeners {
		if l.Source == activation.SourceProxyd {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// listenerNames gives each name once, in order.
func listenerNames(listeners []activation.Listener) []string {
	var names []string
	for _, l := range listeners {
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	return names
}
