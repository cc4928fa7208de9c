package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) revert() *cobra.Command {
	var (
		timeout time.Duration
		to      uint64
	)
	c := &cobra.Command{
		Use:   "revert",
		Short: "Go back to the previous generation",
		Long: `Makes the previous generation current again: the one that status marks with
"previous", or the one that --to names. Where it still drains or stands by, new
connections go to it at once. Where it has exited it is started again as it was
and proven first; until then the current generation serves on. The answer says
which of the two it was.

Connections that the other generation serves run to their end: a revert cuts
nothing, and can itself be reverted.

nginx: HUP to the old master, QUIT to the new one.`,
		Example: `  proxyctl revert
  proxyctl revert --to 2`,
	}
	timeoutFlag(c, &timeout)
	c.Flags().Uint64Var(&to, "to", 0, "go back to generation `N` instead of the previous one")
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		if c.Flags().Changed("to") && to == 0 {
			return usage("--to: generations are numbered from 1")
		}
		if err := checkTimeout(c, timeout); err != nil {
			return err
		}
		about := inProgress("")
		if to != 0 {
			about = numbered(to)
		}
		return a.apply(ctx, change{
			verb: "revert", timeout: timeout, about: about, show: a.reverted,
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Revert(ctx, control.RevertRequest{To: to})
			},
		})
	})
}

func (a *app) reverted(res control.Result) {
	name := generationName(res.Generation, res.Release)
	switch {
	case !res.Switched:
		a.promoted(res)
		return
	case res.Started:
		a.say("generation %s is current again: it had ended, so it was started and proven first, in %s", name, took(res))
	default:
		a.say("generation %s is current again: it still ran, switched to in %s", name, took(res))
	}
	a.drainingLines(res.Draining)
}
