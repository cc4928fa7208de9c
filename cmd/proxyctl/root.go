package main

import (
	"github.com/spf13/cobra"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "proxyctl",
		Short: "Stage, promote and revert the generations of a service behind proxyd",
		Long: `proxyctl tells a running proxyd what to do with a service: start a new
generation beside the current one, prove it, switch new connections to it in one
step, and go back the same way. No connection is refused or cut by it.

It is nginx's binary upgrade for any program:

    nginx -v                            proxyctl status
    put the binary in place, kill -USR2 proxyctl stage RELEASE
    kill -QUIT of the old master        proxyctl promote, and later retire
    kill -HUP old, kill -QUIT new       proxyctl revert
    kill -TERM, kill -KILL              proxyctl stop GENERATION --now, --kill
    the .oldbin pid file                the "previous" mark in proxyctl status

An everyday upgrade:

    proxyctl promote v2         start v2, prove it, switch to it
    proxyctl status             see the old generation drain
    proxyctl revert             changed your mind: back at once

Exit codes: 0 done, 1 failed, 2 usage, 3 proxyd is not running, 4 not permitted,
5 the new generation was not ready (nothing changed), 6 superseded by another
operation, 75 timed out waiting (what was asked for goes on, unless it says that
proxyd was not reached).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(a.stderr)
			_ = c.Help()
			return usage("say what to do: a verb is missing")
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVarP(&a.service, "service", "s", "", "the `NAME` of the service; may be left out where one runs")
	f.StringVar(&a.socket, "socket", "", "the `PATH` of its control socket, instead of a name")
	f.StringVarP(&a.output, "output", "o", "text", "text, or json: one document a line on stdout")
	root.AddCommand(
		a.stage(), a.promote(), a.revert(), a.retire(), a.stop(), a.hold(), a.resume(), a.reload(),
		a.status(), a.history(), a.events(), a.exec(), a.install(), a.uninstall(), a.version(),
	)
	return root
}
