package main

import (
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
)

// options are what the command line says.
type options struct {
	config     string
	runtimeDir string
	stateDir   string
	logLevel   string
	flags      Flags
}

const longHelp = `Proxyd holds the listening sockets of one service, starts each new version of
it beside the old one as a new generation, and switches new connections over in
one step when it is proven ready. Older generations finish what they have begun
before they end. proxyctl tells it what to do:

  proxyctl promote v2     start release v2, prove it, switch to it
  proxyctl revert         and back
  proxyctl status         what runs, what is in flight

The listening sockets come from systemd (a .socket unit) where it passes them,
else from --listen or the config file.

COMMAND is run as a generation, without a shell. In it {release}, {generation},
{port}, {address} and {socket} are replaced. A command that names {port},
{address} or {socket} binds that address itself; any other is handed its
listening sockets as systemd would do it (LISTEN_FDS).`

const examples = `  proxyd --config /etc/proxyd/web.toml
  proxyd check --config /etc/proxyd/web.toml
  proxyd --name web --listen 127.0.0.1:8080 -- /srv/web/{release}/web --port {port}`

func newCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "proxyd [flags] [-- COMMAND ARG...]",
		Short:         "Promote and revert a service without losing a connection",
		Long:          longHelp,
		Example:       examples,
		Args:          cobra.ArbitraryArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := understood(cmd, args); err != nil {
				return err
			}
			o.flags.Command = args
			d, err := o.daemon()
			if err != nil {
				return err
			}
			if err := d.speak(o.logLevel, os.Stdout, os.Stderr); err != nil {
				return err
			}
			return d.serve(cmd.Context())
		},
	}
	check := &cobra.Command{
		Use:   "check [flags] [-- COMMAND ARG...]",
		Short: "Test everything short of serving (nginx -t)",
		Long: `Check reads the config and tests everything short of serving: its rules, the
directories, the programs, the addresses, the durable state. It exits with 0 or 1
and names file, line and key of what is wrong. It starts and changes nothing, and
may be run beside the proxyd that runs the service.

What only the running proxyd's own user, PATH or directory would tell is told for
those of the check: run it as that user.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := understood(cmd, args); err != nil {
				return err
			}
			o.flags.Command = args
			return o.check(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	for _, c := range []*cobra.Command{root, check} {
		f := c.Flags()
		f.StringVar(&o.config, "config", "", "TOML config `FILE`")
		f.StringVar(&o.flags.Name, "name", "", "`NAME` of the service (default: that of the config file)")
		f.StringArrayVar(&o.flags.Listen, "listen", nil, "`ADDRESS` to listen on where systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated")
		f.StringVar(&o.runtimeDir, "runtime-dir", "", "`DIR` of the control socket (default $RUNTIME_DIRECTORY, /run/proxyd/NAME or $XDG_RUNTIME_DIR/proxyd/NAME)")
		f.StringVar(&o.stateDir, "state-dir", "", "`DIR` of the durable state (default $STATE_DIRECTORY, /var/lib/proxyd/NAME or $XDG_STATE_HOME/proxyd/NAME)")
		f.StringVar(&o.flags.Release, "release", "", "`LABEL` of the first generation, where no state exists (default v1)")
		f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	}
	root.AddCommand(check)
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

// understood refuses what is more likely a mistake than meant: words that are
// not flags before "--", as a mistyped verb is, and flags that are given and
// empty, as by a variable that is not set: they would silently mean the default.
func understood(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	if dash < 0 {
		dash = len(args)
	}
	if dash > 0 {
		return fmt.Errorf("%q is not a verb of proxyd; the command to run comes after --", args[0])
	}
	for _, name := range []string{"config", "name", "runtime-dir", "state-dir", "release"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s: is empty", name)
		}
	}
	return nil
}

// daemon gives the daemon that the options describe, with nothing opened yet,
// and mute: see speak.
func (o *options) daemon() (*daemon, error) {
	config, err := Configure(o.config, o.flags)
	if err != nil {
		return nil, err
	}
	if _, err := parseLevel(o.logLevel); err != nil {
		return nil, err
	}
	d := &daemon{config: config, name: config.Name, output: io.Discard, log: hclog.NewNullLogger()}
	if d.runtimeDir, err = runtimeDir(o.runtimeDir, config.Name); err != nil {
		return nil, fmt.Errorf("choose runtime directory: %w", err)
	}
	if d.stateDir, err = stateDir(o.stateDir, config.Name); err != nil {
		return nil, fmt.Errorf("choose state directory: %w", err)
	}
	d.live.Store(config)
	flags := o.flags
	d.reloading.read = func() (*Config, error) { return Configure(o.config, flags) }
	return d, nil
}
