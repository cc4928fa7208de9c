package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) promote() *cobra.Command {
	var (
		timeout   time.Duration
		ifCurrent uint64
		label     string
		wait      string
	)
	c := &cobra.Command{
		Use:   "promote [RELEASE or GENERATION]",
		Short: "Make a generation current: new connections go to it",
		Long: `Switches new connections to a generation in one step. A staged generation of
RELEASE is used where there is one, else a new one is started and proven first. A
number that a generation in ` + "`proxyctl status`" + ` has means that generation, any other
word a release. Without an argument it is a new generation of the current
release, for a program that was replaced in place.

When promote returns with 0, every connection that comes later is served by the
new generation. Those that the old one still serves run to their end, or to the
drain deadline; the old one then stands by for an instant revert. Until the
switch nothing changes for clients: a generation that does not become ready (exit
code 5) is ended again, with the reason and the last lines that it wrote shown.
For a while after the switch, evidence against the new generation reverts it.

Only one stage, promote or revert runs at a time; a second one is refused (exit
code 6). --if-current makes it a compare-and-swap: it is refused where somebody
else made another generation current, before or meanwhile.

nginx: USR2, and QUIT to the old master once the new one serves.`,
		Example: `  proxyctl promote v2
  proxyctl promote 4                       the staged generation 4
  proxyctl promote --release 20260102      a release that is named by a number
  proxyctl promote                         the binary was replaced in place
  proxyctl promote v2 --if-current 3       only if 3 is still current
  proxyctl promote v2 --wait drained --timeout 15m`,
	}
	timeoutFlag(c, &timeout)
	c.Flags().Uint64Var(&ifCurrent, "if-current", 0, "refuse unless generation `N` is current, now and at the switch")
	c.Flags().StringVar(&label, "release", "", "promote the release `LABEL`, also where it reads like a generation's number")
	c.Flags().StringVar(&wait, "wait", "switched", "return once `switched`, or once the old generation is drained")
	return a.verb(c, 1, func(ctx context.Context, args []string) error {
		switch {
		case wait != "switched" && wait != "drained":
			return usage("--wait: want switched or drained, got %q", wait)
		case c.Flags().Changed("if-current") && ifCurrent == 0:
			return usage("--if-current: generations are numbered from 1")
		}
		if err := checkTimeout(c, timeout); err != nil {
			return err
		}
		byLabel := c.Flags().Changed("release")
		if byLabel {
			if len(args) > 0 {
				return usage("promote: %q and --release exclude each other", args[0])
			}
			args = []string{label}
		}
		release, err := releaseArg(args)
		if err != nil {
			return err
		}
		request := control.PromoteRequest{Release: release, IfCurrent: ifCurrent}
		what := change{verb: "promote", timeout: timeout, about: inProgress(release), show: a.promoted}
		what.do = func(ctx context.Context, c *control.Client) (control.Result, error) {
			return c.Promote(ctx, request)
		}
		if !byLabel && isDigits(release) {
			id, err := a.generationOf(ctx, release)
			if err != nil {
				return err
			}
			if id != 0 {
				request.Release, request.Generation = "", id
				what.about = numbered(id)
			}
		}
		if wait == "drained" {
			what.settled = drained
		}
		return a.apply(ctx, what)
	})
}

// asNumber gives an argument as the number of a generation, if it can be one.
func asNumber(arg string) (uint64, bool) {
	id, err := strconv.ParseUint(arg, 10, 64)
	return id, err == nil && id > 0 && arg == strconv.FormatUint(id, 10)
}

// isDigits tells whether an argument may be meant as a number.
func isDigits(arg string) bool { return arg != "" && strings.Trim(arg, "0123456789") == "" }

// generationOf gives the generation that a number means; 0 where it is the
// label of a release that is known here. A generation that cannot be promoted
// counts as well: proxyd then says why, instead of starting a release that
// nobody meant. Any other number is an error for the same reason.
func (a *app) generationOf(ctx context.Context, number string) (uint64, error) {
	client, err := a.client(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return 0, err
	}
	if id, ok := asNumber(number); ok && st.Generation(id) != nil {
		return id, nil
	}
	if slices.ContainsFunc(st.Generations, func(g control.Generation) bool { return g.Release == number }) {
		return 0, nil
	}
	return 0, &control.Error{Code: control.Usage, Message: "there is no generation " + number,
		Hint: "`proxyctl status` lists them; if it is the name of a release: `proxyctl promote --release " + number + "`"}
}

func (a *app) promoted(res control.Result) {
	name := generationName(res.Generation, res.Release)
	switch {
	case !res.Switched && res.Message != "":
		a.say("%s", clean(res.Message))
	case !res.Switched:
		a.say("generation %s was current already", name)
	case res.Started:
		a.say("generation %s is current: started, proven and switched to in %s", name, took(res))
	default:
		a.say("generation %s is current: switched to in %s", name, took(res))
	}
	a.drainingLines(res.Draining)
}

// drained tells whether the generation that was current before still drains.
func drained(st control.Status, res control.Result) (over bool, state, detail string, err error) {
	g := st.Generation(res.Previous)
	switch {
	case g == nil:
		return true, "", "", nil
	case g.State == "current":
		return false, "", "", &control.Error{Code: control.Superseded,
			Message: fmt.Sprintf("generation %s was made current again meanwhile", generationName(g.ID, g.Release)),
			Hint:    "`proxyctl history` tells by whom and why"}
	case g.State != "draining":
		return true, "", "", nil
	}
	detail = fmt.Sprintf(", %d in flight", g.InFlight)
	if g.DrainDeadline != nil {
		detail += ", what is left is cut in " + age(time.Until(*g.DrainDeadline))
	}
	return false, fmt.Sprintf("generation %s: draining", generationName(g.ID, g.Release)), detail, nil
}
