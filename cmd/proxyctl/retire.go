package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) retire() *cobra.Command {
	c := &cobra.Command{
		Use:   "retire",
		Short: "End the standby: the new generation is there to stay",
		Long: `Ends the generation that stands by for an instant revert, which would otherwise
be kept for a while. It has no connection left, so nobody notices. A revert is
possible afterwards too: it then starts that generation again first.

nginx: QUIT to the old master.`,
		Example: `  proxyctl retire`,
	}
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		return a.apply(ctx, change{
			verb: "retire", about: numbered(0),
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Retire(ctx, control.RetireRequest{})
			},
			show: a.endedOrEnding,
		})
	})
}

// endedOrEnding shows what became of a generation that was asked to end.
func (a *app) endedOrEnding(res control.Result) {
	switch {
	case res.Message != "":
		a.say("%s", clean(res.Message))
	case res.State != "":
		a.say("generation %s: %s", generationName(res.Generation, res.Release), clean(res.State))
	default:
		a.say("generation %s ends", generationName(res.Generation, res.Release))
	}
	a.drainingLines(res.Draining)
}
