package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run is the whole program; the first argument may name one of its other roles.
func run(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "backend":
			return backendMain(args[1:])
		case "relay":
			return relayMain(args[1:])
		}
	}
	b, output, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if err := limitDescriptors(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	res, err := b.run(ctx)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted: the report holds what was measured until then")
	}
	if output == "json" {
		return errors.Join(err, b.reportJSON(stdout, res))
	}
	return errors.Join(err, b.report(stdout, res))
}

func parseFlags(args []string, stderr io.Writer) (*bench, string, error) {
	b := &bench{progress: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&b.rounds, "rounds", 5, "rounds over all workloads and peers, 1 to 100")
	flags.DurationVar(&b.duration, "duration", time.Second, "length of one measurement, about, 10ms to 1m")
	flags.BoolVar(&b.quick, "quick", false, "3 rounds of 300ms and one promote a round")
	workloads := flags.String("workloads", "", "only these, by comma: "+names(allWorkloads(), workloadName))
	peers := flags.String("peers", "", "only these, by comma: "+names(allPeers(), peerName))
	backend := flags.String("backend", "both", "tcp, unix or both")
	output := flags.String("o", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return nil, "", err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if b.quick && !given["rounds"] {
		b.rounds = 3
	}
	if b.quick && !given["duration"] {
		b.duration = 300 * time.Millisecond
	}
	switch *backend {
	case "tcp", "unix":
		b.kinds = []string{*backend}
	case "both":
		b.kinds = []string{"tcp", "unix"}
	default:
		return nil, "", fmt.Errorf("flag -backend: %q is not tcp, unix or both", *backend)
	}
	var err1, err2 error
	b.workloads, err1 = choose("workloads", *workloads, allWorkloads(), workloadName)
	b.peers, err2 = choose("peers", *peers, allPeers(), peerName)
	switch {
	case flags.NArg() > 0:
		return nil, "", fmt.Errorf("argument %q is not known", flags.Arg(0))
	case *output != "text" && *output != "json":
		return nil, "", fmt.Errorf("flag -o: %q is not text or json", *output)
	case b.rounds < 1 || b.rounds > 100:
		return nil, "", fmt.Errorf("flag -rounds: %d is not between 1 and 100", b.rounds)
	case b.duration < 10*time.Millisecond || b.duration > time.Minute:
		return nil, "", fmt.Errorf("flag -duration: %v is not between 10ms and 1m", b.duration)
	}
	return b, *output, errors.Join(err1, err2)
}

func workloadName(w *workload) string { return w.name }
func peerName(p *peer) string         { return p.name }

func names[T any](all []T, name func(T) string) string {
	var s []string
	for _, x := range all {
		s = append(s, name(x))
	}
	return strings.Join(s, ", ")
}

// choose takes those of all that the flag names; an empty flag takes all.
func choose[T any](flag, wanted string, all []T, name func(T) string) ([]T, error) {
	if wanted == "" {
		return all, nil
	}
	want := strings.Split(wanted, ",")
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
		if !slices.ContainsFunc(all, func(x T) bool { return name(x) == want[i] }) {
			return nil, fmt.Errorf("flag -%s: %q is not one of %s", flag, want[i], names(all, name))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(x T) bool { return !slices.Contains(want, name(x)) }), nil
}

// limitDescriptors gives this process and all its children the same limit.
func limitDescriptors() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read descriptor limit: %w", err)
	}
	if l.Max < maxDescriptors {
		return fmt.Errorf("descriptor limit: %d is too low for 5,000 connections, %d are needed (ulimit -n)", l.Max, maxDescriptors)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: maxDescriptors, Max: l.Max}); err != nil {
		return fmt.Errorf("set descriptor limit: %w", err)
	}
	return nil
}
