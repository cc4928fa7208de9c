package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
)

// commandLine fills the run's addresses into its command and environment. The
// environment is proxyd's own, without what systemd meant for proxyd.
func (d *execDriver) commandLine(run *execRun) (argv, env []string, dir string, err error) {
	values, port := placeholderValues(run.launch, d.sockets.listeners, run.kept.addresses)
	if argv, err = Expand(run.config.Backend.Command, values); err != nil {
		return nil, nil, "", fmt.Errorf("expand command: %w", err)
	}
	if run.config.Backend.Dir != "" {
		expanded, err := Expand([]string{run.config.Backend.Dir}, values)
		if err != nil {
			return nil, nil, "", fmt.Errorf("expand backend.dir: %w", err)
		}
		dir = expanded[0]
	}
	env = activation.ScrubEnv(os.Environ())
	for _, k := range slices.Sorted(maps.Keys(run.config.Backend.Env)) {
		v, err := Expand([]string{run.config.Backend.Env[k]}, values)
		if err != nil {
			return nil, nil, "", fmt.Errorf("expand backend.env.%s: %w", k, err)
		}
		env = append(env, k+"="+v[0])
	}
	env = append(env,
		"PROXYD_SERVICE="+d.service, "PROXYD_GENERATION="+values["generation"], "PROXYD_RELEASE="+run.launch.Release, "PROXYD_CONTROL="+d.control)
	if run.config.BindsItself() && port != "" {
		env = append(env, "PORT="+port)
	}
	if check := backend.Check(d.config.Load().Ready.Check); check == backend.CheckAuto || check == backend.CheckNotify {
		env = append(env, "NOTIFY_SOCKET="+d.notifyPath(run.launch.ID))
	}
	return argv, lastWins(env), dir, nil
}

// lastWins keeps the last of several settings of one variable: a program would
// see the first.
func lastWins(env []string) []string {
	at := map[string]int{}
	kept := env[:0:0]
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := at[k]; ok {
			kept[i] = kv
			continue
		}
		at[k] = len(kept)
		kept = append(kept, kv)
	}
	return kept
}
