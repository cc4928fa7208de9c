package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) stop() *cobra.Command {
	var now, kill bool
	c := &cobra.Command{
		Use:   "stop GENERATION",
		Short: "End one generation that is not current",
		Long: `Ends a generation that is not the current one: a staged one that is not wanted,
one that drains, the standby. Stopping the generation that a stage, promote or
revert is starting cancels that operation.

Its connections run to their end first. With --now they are cut, and it gets the
stop signal at once; with --kill its processes are killed. It is killed as well
where it does not end within the stop timeout.

nginx: QUIT to the old master; TERM with --now, KILL with --kill.`,
		Example: `  proxyctl stop 4
  proxyctl stop 2 --now`,
	}
	c.Flags().BoolVar(&now, "now", false, "cut its connections instead of waiting for their end")
	c.Flags().BoolVar(&kill, "kill", false, "kill it")
	return a.verb(c, 1, func(ctx context.Context, args []string) error {
		if now && kill {
			return usage("--now and --kill exclude each other")
		}
		if len(args) == 0 {
			return usage("stop: say which GENERATION, by its number")
		}
		id, ok := asNumber(args[0])
		if !ok {
			return usage("stop: %q is not the number of a generation", args[0])
		}
		request := control.StopRequest{Generation: id}
		switch {
		case now:
			request.Mode = control.StopNow
		case kill:
			request.Mode = control.StopKill
		}
		return a.apply(ctx, change{
			verb: "stop", about: numbered(id), show: a.endedOrEnding,
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Stop(ctx, request)
			},
		})
	})
}
