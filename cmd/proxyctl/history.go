package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) history() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "history",
		Short: "Show what happened to the generations, and who asked for it",
		Long: `Shows the last entries of the service's history, oldest first: every start,
switch, drain and end, which generation was current before (FROM), who asked (BY;
"proxyd" where it decided by itself) and why. It survives restarts of proxyd.`,
		Example: `  proxyctl history
  proxyctl history -n 0 -o json`,
	}
	c.Flags().IntVarP(&limit, "lines", "n", 20, "the last `N` entries; 0 for all that are kept")
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		if limit < 0 {
			return usage("--lines: %d is below zero", limit)
		}
		client, err := a.client(ctx)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		entries, err := client.History(ctx, limit)
		if err != nil {
			return err
		}
		if a.output == "json" {
			a.json(struct {
				Schema  int                    `json:"schema"`
				Entries []control.HistoryEntry `json:"entries"`
			}{control.Schema, entries})
			return nil
		}
		rows := [][]cell{header("TIME", "EVENT", "GENERATION", "FROM", "BY", "REASON")}
		for _, e := range entries {
			rows = append(rows, []cell{
				{text: e.Time.Local().Format(timeForm)},
				{text: clean(e.Event)},
				{text: numberOrDash(e.Generation, e.Release)},
				{text: numberOrDash(e.From, "")},
				{text: asker(e)},
				{text: clean(e.Reason)},
			})
		}
		table(a.stdout, a.outStyled, rows)
		return nil
	})
}

const timeForm = "2006-01-02 15:04:05"

func numberOrDash(id uint64, release string) string {
	if id == 0 {
		return "-"
	}
	if release == "" {
		return strconv.FormatUint(id, 10)
	}
	return generationName(id, release)
}

func asker(e control.HistoryEntry) string {
	if e.By == "" {
		return "proxyd"
	}
	return clean(e.By)
}
