package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Getenv, control.RuntimeDirs(os.Getenv)))
}

// app is one call of proxyctl: where it speaks, and the flags of every verb.
type app struct {
	stdout               *output
	stderr               io.Writer
	outStyled, errStyled bool     // colours may be used there
	moving               bool     // stderr is a terminal: progress redraws its line
	environ              []string // of this process
	dirs                 []string // that hold the runtime directories of services
	began                bool     // the command line was understood
	changed              bool     // proxyd did what it was asked for

	service, socket, output string
}

// run is the whole program. It gives the exit code.
func run(args []string, stdout, stderr io.Writer, getenv func(string) string, dirs []string) int {
	styled := getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	a := &app{
		stdout: &output{w: stdout}, stderr: stderr, dirs: dirs, environ: os.Environ(),
		outStyled: styled && isTerminal(stdout),
		errStyled: styled && isTerminal(stderr),
		moving:    isTerminal(stderr) && getenv("TERM") != "dumb",
	}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		err = a.failure()
	}
	return a.exit(err)
}

// exitInterrupted is what a shell takes for "ended by ^C".
const exitInterrupted = 130

// errInterrupted: someone pressed ^C while something was waited for.
var errInterrupted = errors.New("interrupted")

// exit shows what went wrong and gives the exit code for it.
func (a *app) exit(err error) int {
	if err == nil {
		return 0
	}
	var e *control.Error
	switch {
	case errors.As(err, &e):
	case !a.began: // from cobra: an unknown verb or flag
		e = &control.Error{Code: control.Usage, Message: err.Error(), Hint: "`proxyctl help` lists the verbs and flags"}
	default:
		e = &control.Error{Code: control.Failed, Message: err.Error()}
	}
	if a.output == "json" && a.began {
		a.json(struct {
			Error *control.Error `json:"error"`
		}{e})
	}
	a.showError(e)
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	return e.Code.ExitCode()
}

// showError writes `error: ...`, what the generation wrote, and `hint: ...`.
func (a *app) showError(e *control.Error) {
	fmt.Fprintf(a.stderr, "%s %s\n", paint(a.errStyled, styleBad, "error:"), clean(e.Message))
	if len(e.Output) > 0 {
		fmt.Fprintln(a.stderr, "the last lines it wrote:")
		for _, line := range e.Output {
			fmt.Fprintf(a.stderr, "    %s\n", clean(line))
		}
	}
	if e.Hint != "" {
		fmt.Fprintf(a.stderr, "%s %s\n", paint(a.errStyled, styleQuiet, "hint:"), clean(e.Hint))
	}
}

// json writes one document, on one line, to stdout.
func (a *app) json(v any) {
	b, err := control.Encode(v)
	if err != nil { // no type of ours can fail to encode
		panic(err)
	}
	_, _ = a.stdout.Write(b) // see failure
}

// say writes a line of data to stdout.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }

// remark writes a line for the person at the terminal to stderr.
func (a *app) remark(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }

func usage(format string, args ...any) error {
	return &control.Error{Code: control.Usage, Message: fmt.Sprintf(format, args...)}
}

// askTimeout bounds the wait for an answer that proxyd has at hand.
const askTimeout = 10 * time.Second

// verb finishes a command: the wrapped RunE runs once the command line was
// understood, and the number of arguments is checked with words of our own.
func (a *app) verb(c *cobra.Command, most int, do func(ctx context.Context, args []string) error) *cobra.Command {
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > most {
			return usage("%s: one argument too many: %q", c.Name(), args[most])
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if a.output != "text" && a.output != "json" {
			return usage("--output: want text or json, got %q", a.output)
		}
		for _, name := range []string{"service", "socket"} { // a variable that is not set must not mean another service
			if f := c.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
				return usage("--%s is empty", name)
			}
		}
		a.began = true
		return do(c.Context(), args)
	}
	return c
}
