package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) reload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have proxyd read its config again",
		Long: `Has proxyd read its config again and apply it as a whole, or, where it is wrong
or cannot be applied while proxyd runs, keep the one in force: then the reason is
shown and the exit code is 1. What runs stays as it is: a new command or readiness
check is for generations that are started from then on. Another driver, unit, scope
or path, other listeners and limits are refused: they take a restart of proxyd.

It is what ` + "`systemctl reload proxyd@NAME`" + ` does; SIGHUP asks for the same, and the
log has the outcome.`,
		Example: `  proxyctl reload`,
	}
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		return a.apply(ctx, change{
			verb: "reload",
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Reload(ctx, control.ReloadRequest{})
			},
			show: func(res control.Result) { a.say("%s", clean(res.Message)) },
		})
	})
}
