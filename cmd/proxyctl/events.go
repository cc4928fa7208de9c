package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) events() *cobra.Command {
	var (
		follow bool
		lines  int
		after  uint64
	)
	c := &cobra.Command{
		Use:   "events",
		Short: "Follow what happens, one line for each event",
		Long: `Writes the last entries of the history, one a line, and with -f every new one as it
comes, until ^C or until proxyd ends. With -o json each line is a document with a
number "seq" that rises and is never used again: a program that was away asks
with --after for what it missed.`,
		Example: `  proxyctl events -f
  proxyctl events -f -o json --after 1041`,
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	c.Flags().IntVarP(&lines, "lines", "n", 10, "begin with the last `N` entries; 0 for all that are kept")
	c.Flags().Uint64Var(&after, "after", 0, "begin after the entry numbered `SEQ`")
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		if c.Flags().Changed("after") {
			lines = 0
		}
		if lines < 0 {
			return usage("--lines: %d is below zero", lines)
		}
		client, err := a.client(ctx)
		if err != nil {
			return err
		}
		last, err := a.past(ctx, client, lines, after)
		if err != nil || !follow {
			return err
		}
		return a.follow(ctx, client, last)
	})
}

// past writes what happened already and gives the number of the last entry.
func (a *app) past(ctx context.Context, client *control.Client, lines int, after uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	entries, err := client.History(ctx, lines)
	if err != nil {
		return 0, err
	}
	last := after
	for _, e := range entries {
		if e.Seq > last {
			last = e.Seq
			a.event(e)
		}
	}
	return last, a.failure()
}

// follow writes new entries as they come. A stream that was cut is taken up
// again where it ended, until proxyd itself is gone: then that is the error.
func (a *app) follow(ctx context.Context, client *control.Client, last uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		before := last
		entries, err := client.Events(ctx, last)
		if err != nil {
			return err
		}
		for e := range entries {
			last = e.Seq
			a.event(e)
			if err := a.failure(); err != nil {
				return err // the stream ends with ctx
			}
		}
		if last == before {
			// It ended without a word: proxyd ends, or does not want us.
			if _, err := client.Version(ctx); err != nil {
				return err
			}
			return &control.Error{Code: control.Failed, Message: "proxyd ended the stream of events",
				Hint: "it may have had to make room for others; ask again"}
		}
	}
}

func (a *app) event(e control.HistoryEntry) {
	if a.output == "json" {
		a.json(e)
		return
	}
	var line strings.Builder
	line.WriteString(e.Time.Local().Format(timeForm) + "  " + clean(e.Event))
	if e.Generation != 0 {
		line.WriteString(", generation " + generationName(e.Generation, e.Release))
	}
	if e.From != 0 {
		line.WriteString(", before it " + numberOrDash(e.From, ""))
	}
	line.WriteString(", by " + asker(e))
	if e.Reason != "" {
		line.WriteString(": " + clean(e.Reason))
	}
	a.say("%s", line.String())
}
