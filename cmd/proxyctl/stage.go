package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) stage() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "stage [RELEASE]",
		Short: "Start a generation beside the others and prove it ready",
		Long: `Starts a new generation of RELEASE beside the current one and waits until its
readiness check holds. It gets no client: that is what promote is for. Without an
argument it is of the current release, for a program that was replaced in place.

The number of the generation is printed on stdout. If it is not ready in time, or
dies, it is ended again, the reason and the last lines that it wrote are shown,
and the exit code is 5. Nothing changes for clients, whatever happens to it.

nginx: put the new binary in place and send USR2.`,
		Example: `  proxyctl stage v2
  n=$(proxyctl stage v2) && ./smoke-test && proxyctl promote "$n"`,
	}
	timeoutFlag(c, &timeout)
	return a.verb(c, 1, func(ctx context.Context, args []string) error {
		if err := checkTimeout(c, timeout); err != nil {
			return err
		}
		release, err := releaseArg(args)
		if err != nil {
			return err
		}
		return a.apply(ctx, change{
			verb: "stage", timeout: timeout, about: inProgress(release),
			do: func(ctx context.Context, c *control.Client) (control.Result, error) {
				return c.Stage(ctx, control.StageRequest{Release: release})
			},
			show: func(res control.Result) {
				a.remark("generation %s is ready after %s; `proxyctl promote %d` makes it current",
					generationName(res.Generation, res.Release), took(res), res.Generation)
				a.say("%d", res.Generation)
			},
		})
	})
}

func timeoutFlag(c *cobra.Command, timeout *time.Duration) {
	c.Flags().DurationVar(timeout, "timeout", 0, "wait for at most `D` (30s, 5m), then exit with 75; what was asked for goes on")
}

func checkTimeout(c *cobra.Command, timeout time.Duration) error {
	if c.Flags().Changed("timeout") && timeout <= 0 {
		return usage("--timeout: %s is not a time to wait", timeout)
	}
	return nil
}

// releaseArg gives the release that was named, or none.
func releaseArg(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	if err := control.CheckRelease(args[0]); err != nil {
		return "", &control.Error{Code: control.Usage, Message: fmt.Sprint(err)}
	}
	return args[0], nil
}
