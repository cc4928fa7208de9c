package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// watchEvery is how often --watch looks.
const watchEvery = time.Second

func (a *app) status() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the service, its listeners and its generations",
		Long: `Shows what serves, what drains and what one can go back to, of every service on
this host or of the one that -s names.

The service is "starting" (no client was served yet), "serving", "held" or
"waiting" (nothing can serve; clients queue, they are not refused). AGE is how
long a generation has been in its state; "previous" marks the one that revert
goes back to. With -o json each service is one document on a line of its own.

--watch shows it again whenever something changed; on a terminal every second, in
place, until ^C.

nginx: nginx -v of both binaries, and the .oldbin pid file.`,
		Example: `  proxyctl status
  proxyctl status -o json | jq .current
  proxyctl -s web status --watch`,
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it")
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		if watch {
			return a.watch(ctx)
		}
		services, err := a.look(ctx)
		a.showServices(a.stdout, services)
		return err
	})
}

// look asks every service that is meant. What could be had is given also where
// there is an error.
func (a *app) look(ctx context.Context) ([]control.Status, error) {
	clients, err := a.clients(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var services []control.Status
	var first error
	for _, c := range clients {
		st, err := c.Status(ctx)
		switch {
		case err == nil:
			services = append(services, st)
		case len(clients) > 1 && errors.Is(err, control.ErrNotRunning): // it ended just now
		case first == nil:
			first = err
		}
	}
	if len(services) == 0 && first == nil {
		first = a.nobody(nil)
	}
	return services, first
}

func (a *app) showServices(w io.Writer, services []control.Status) {
	for i, st := range services {
		if a.output == "json" {
			a.json(st)
			continue
		}
		if i > 0 {
			fmt.Fprintln(w)
		}
		writeStatus(w, st, time.Now(), a.outStyled)
	}
}

// watch shows the status whenever it changed, and on a terminal every second, as
// ages change always. It ends with an error, or by a signal.
func (a *app) watch(ctx context.Context) error {
	inPlace := isTerminal(a.stdout) && a.output == "text"
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var shown string
	for {
		services, err := a.look(ctx)
		if err != nil {
			return err
		}
		now, err := control.Encode(services)
		if err != nil {
			return err
		}
		switch {
		case inPlace:
			var page strings.Builder
			a.showServices(&page, services)
			fmt.Fprint(a.stdout, "\x1b[H\x1b[J", page.String())
		case string(now) != shown:
			if shown != "" && a.output == "text" {
				fmt.Fprintln(a.stdout)
			}
			a.showServices(a.stdout, services)
			shown = string(now)
		}
		if err := a.failure(); err != nil {
			return err
		}
		<-tick.C
	}
}

// writeStatus writes what a person wants to know first, first.
func writeStatus(w io.Writer, st control.Status, now time.Time, styled bool) {
	fmt.Fprintln(w, serviceLine(st, now, styled))

	if len(st.Listeners) > 0 {
		rows := [][]cell{header("LISTENER", "ADDRESS", "PATH", "FROM")}
		for _, l := range st.Listeners {
			rows = append(rows, []cell{{text: clean(l.Name)}, {text: clean(l.Address)}, {text: pathOf(l)}, {text: clean(l.Source)}})
		}
		fmt.Fprintln(w)
		table(w, styled, rows)
	}
	if len(st.Generations) == 0 {
		return
	}
	gens := append([]control.Generation(nil), st.Generations...)
	sort.Slice(gens, func(i, j int) bool { return gens[i].ID > gens[j].ID })
	rows := [][]cell{header("GENERATION", "RELEASE", "STATE", "IN-FLIGHT", "ACCEPTED", "PID", "AGE", "NOTE")}
	for i := 3; i < 7; i++ { // the numbers
		rows[0][i].right = true
	}
	for _, g := range gens {
		rows = append(rows, generationRow(g, st.Previous, now))
	}
	fmt.Fprintln(w)
	table(w, styled, rows)
}

// pathOf gives a listener's path, and why it is the relay.
func pathOf(l control.Listener) string {
	if l.Reason == "" {
		return clean(l.Path)
	}
	return clean(l.Path) + " (" + clean(l.Reason) + ")"
}

func serviceLine(st control.Status, now time.Time, styled bool) string {
	look := stateStyles[st.State]
	parts := []string{paint(styled, styleBold, clean(st.Service)) + ": " + paint(styled, look, clean(st.State))}
	switch st.State {
	case "starting":
		parts = append(parts, "no client was served yet")
	case "waiting":
		parts = append(parts, "nothing can serve, clients queue")
	case "held":
		until := "until resume"
		if st.HeldUntil != nil {
			until = "for " + age(st.HeldUntil.Sub(now)) + " more at most"
		}
		parts = append(parts, "new connections wait "+until)
	}
	if st.Current != 0 {
		release := ""
		if g := st.Generation(st.Current); g != nil {
			release = g.Release
		}
		parts = append(parts, "generation "+generationName(st.Current, release)+" is current")
	}
	var paths []string
	seen := map[string]bool{}
	for _, l := range st.Listeners {
		if !seen[l.Path] {
			seen[l.Path] = true
			paths = append(paths, clean(l.Path))
		}
	}
	if len(paths) > 0 {
		parts = append(parts, "path "+strings.Join(paths, " and "))
	}
	return strings.Join(parts, ", ")
}

var stateStyles = map[string]style{
	"serving": styleGood, "current": styleGood,
	"starting": styleAlert, "ready": styleAlert, "draining": styleAlert, "stopping": styleAlert, "held": styleAlert,
	"failed": styleBad, "waiting": styleBad,
	"stopped": styleQuiet,
}

func generationRow(g control.Generation, previous uint64, now time.Time) []cell {
	pid, since, accepted := "-", "-", "-"
	if g.Path != "direct" { // there nobody counts them
		accepted = strconv.FormatUint(g.Accepted, 10)
	}
	if g.PID != 0 {
		pid = strconv.Itoa(g.PID)
	}
	if !g.Since.IsZero() {
		since = age(now.Sub(g.Since))
	}
	var notes []string
	if g.ID == previous {
		notes = append(notes, "previous")
	}
	if g.DrainDeadline != nil {
		notes = append(notes, "cut in "+age(g.DrainDeadline.Sub(now)))
	}
	if g.KillAt != nil {
		notes = append(notes, "KILL in "+age(g.KillAt.Sub(now)))
	}
	if g.Unit != "" {
		notes = append(notes, clean(g.Unit))
	}
	if g.Reason != "" {
		notes = append(notes, clean(g.Reason))
	}
	if g.Notice != "" {
		notes = append(notes, `"`+clean(g.Notice)+`"`)
	}
	return []cell{
		{text: strconv.FormatUint(g.ID, 10)},
		{text: clean(g.Release)},
		{text: clean(g.State), style: stateStyles[g.State]},
		{text: strconv.FormatUint(g.InFlight, 10), right: true},
		{text: accepted, right: true},
		{text: pid, right: true},
		{text: since, right: true},
		{text: strings.Join(notes, ", ")},
	}
}
