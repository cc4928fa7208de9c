package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) resume() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume",
		Short: "Let the connections go on that hold keeps waiting",
		Long: `Ends a hold: the connections that waited are served in the order they came, and
new ones again at once. Without a hold it does nothing.`,
		Example: `  proxyctl resume`,
	}
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		return a.apply(ctx, change{
			verb: "resume",
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Resume(ctx, control.ResumeRequest{})
			},
			show: func(res control.Result) {
				switch {
				case res.Message != "":
					a.say("%s", clean(res.Message))
				case res.State != "":
					a.say("resumed: the service is %s", clean(res.State))
				default:
					a.say("resumed")
				}
			},
		})
	})
}
