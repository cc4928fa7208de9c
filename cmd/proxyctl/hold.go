package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) hold() *cobra.Command {
	var most time.Duration
	c := &cobra.Command{
		Use:   "hold",
		Short: "Keep new connections waiting, without refusing any",
		Long: `New connections wait in the listener's queue until resume; a client sees a server
that is slow to answer. Connections that are being served go on. It is for a
moment in which nothing may begin, such as a switch of a database. The queue has
an end: hold for seconds, not for hours, and let --max resume where you forget.

nginx: there is nothing like it.`,
		Example: `  proxyctl hold --max 30s && ./migrate && proxyctl resume`,
	}
	c.Flags().DurationVar(&most, "max", 0, "resume after `D` (30s) at the latest")
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		if c.Flags().Changed("max") && most <= 0 {
			return usage("--max: %s is not a time to hold for", most)
		}
		return a.apply(ctx, change{
			verb: "hold",
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Hold(ctx, control.HoldRequest{Max: control.Duration(most)})
			},
			show: func(res control.Result) {
				switch {
				case res.Message != "":
					a.say("%s", clean(res.Message))
				case most > 0:
					a.say("held: new connections wait, for %s at most", most)
				default:
					a.say("held: new connections wait")
				}
				a.remark("`proxyctl resume` lets them go on")
			},
		})
	})
}
