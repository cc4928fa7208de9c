package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// report writes the whole for a person.
func (b *bench) report(w io.Writer, res *results) error {
	var out strings.Builder
	b.preface(&out, res)
	for _, e := range res.entries {
		e.table(&out)
	}
	b.goals(&out, res)
	_, err := io.WriteString(w, out.String())
	return err
}

// goals writes what proxyd is held to.
func (b *bench) goals(out *strings.Builder, res *results) {
	fmt.Fprintf(out, "\nGoals: ratios of medians, in brackets the lowest and highest ratio of a single round\n\n")
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  backend\tgoal\tlimit\tmeasured\tverdict\n")
	missed := 0
	for _, kind := range b.kinds {
		bars := res.bars(kind)
		missed += failed(bars)
		for _, x := range bars {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", x.Backend, x.Goal, x.limit(), x.measured(), x.verdict())
		}
	}
	_ = t.Flush() // to memory
	fmt.Fprintf(out, "\n%d not met.\n", missed)
}

func (b *bench) preface(out *strings.Builder, res *results) {
	fmt.Fprintf(out, "proxyd beside its peers: %s, %d processors, Linux %s, TCP %s, %s\n\n",
		processorName(), runtime.NumCPU(), kernelRelease(), congestionControl(), runtime.Version())
	fmt.Fprintf(out, "The load (this program), the proxy and a backend (this program again) share the machine\n"+
		"and speak over loopback. %d rounds, about %v a measurement; in each round every workload\n"+
		"is measured for one peer after the other, with the same number of requests or bytes.\n"+
		"A cell is the median over the rounds, its spread (lowest..highest, in %% of it), and its\n"+
		"ratio to the best peer (\"x1.00\"); proxyd and none are not peers. Proxy CPU: all threads\n"+
		"of the proxy, kernel time included. Machine CPU: all that was not idle, the load and the\n"+
		"backend included. `go doc ./cmd/bench` says how it is measured and what its limits are.\n\n", b.rounds, b.duration)
	for _, f := range res.peers {
		if f.missing != "" {
			fmt.Fprintf(out, "  %-14s MISSING: %s\n", f.peer.name, strings.ReplaceAll(f.missing, "\n", "\n                 "))
			continue
		}
		fmt.Fprintf(out, "  %-14s %s: %s\n", f.peer.name, f.release, f.peer.about)
	}
	if share := res.foreignShare(runtime.NumCPU()); share > 0 {
		fmt.Fprintf(out, "\nOther programs (and the kernel's own threads) used %.0f%% of the processors meanwhile.\n", share*100)
		if share > 0.1 {
			fmt.Fprintf(out, "That is much: the machine was not quiet, and the figures are worth less.\n")
		}
	}
}

// table writes one workload.
func (e *entry) table(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s, %s backend (%s)\n", e.workload.title, e.kind, e.workload.name)
	fmt.Fprintf(out, "%s\n", wrap(e.workload.how+e.sized(), 90))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	metrics := e.workload.metrics()
	fmt.Fprint(t, "  peer\t")
	for _, m := range metrics {
		fmt.Fprintf(t, "%s\t", m.title)
	}
	fmt.Fprintln(t)
	var notes []string
	for _, r := range e.rows {
		if r.note != "" {
			notes = append(notes, r.peer.name+": "+r.note)
		}
		if f := r.failures(); f.total() > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d FAILURES: %s", r.peer.name, f.total(), f))
		}
		if n := r.connections(); n > 0 && n != e.workload.connections() {
			notes = append(notes, fmt.Sprintf("%s: with %d connections only; it needs %d descriptors for each", r.peer.name, n, r.peer.perConn))
		}
		if len(r.rounds) == 0 {
			continue
		}
		fmt.Fprintf(t, "  %s\t", r.peer.name)
		for _, m := range metrics {
			fmt.Fprintf(t, "%s\t", cell(r.spread(m), e.best(m)))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // to memory
	for _, n := range notes {
		fmt.Fprintf(out, "  %s\n", n)
	}
}

func (e *entry) sized() string {
	switch {
	case e.amount == 0:
		return ""
	case e.workload.kind == bulk:
		return fmt.Sprintf(" %.2f GB a measurement.", float64(e.amount)/1e9)
	}
	return fmt.Sprintf(" %d requests a measurement.", e.amount)
}

func (r *row) connections() int {
	if len(r.rounds) == 0 {
		return 0
	}
	return r.rounds[0].Connections
}

// cell is "21.3 -2..+4% x1.05".
func cell(s spread, best float64) string {
	if s.Rounds == 0 {
		return "-"
	}
	text := number(s.Median)
	if s.Rounds > 1 && s.Median != 0 {
		text += fmt.Sprintf(" %+.0f..%+.0f%%", (s.Min/s.Median-1)*100, (s.Max/s.Median-1)*100)
	}
	if best > 0 {
		text += fmt.Sprintf(" x%.2f", s.Median/best)
	}
	return text
}

// number has three digits that mean something.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// String names the reasons in a fixed order.
func (f failures) String() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, fmt.Sprintf("%d %s", f[reason], reason))
	}
	return strings.Join(parts, ", ")
}

// wrap breaks text into lines of at most width, where it has spaces.
func wrap(text string, width int) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n")
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// congestionControl is the one of all TCP connections here; bbr paces even on
// loopback, which costs everyone timers.
func congestionControl() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func processorName() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
