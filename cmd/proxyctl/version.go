package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/seed8fae2174/proxyd/backend/control"
)

func (a *app) version() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show which build this is, and which one the running proxyd is",
		Long: `Shows the version of this proxyctl, and of the running proxyd: of the one that -s or
--socket names, or where only one service runs, of that. The two may differ after
an update, until proxyd is restarted.`,
		Example: `  proxyctl version`,
	}
	return a.verb(c, 0, func(ctx context.Context, _ []string) error {
		own := control.BuildVersion()
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		running, err := a.runningVersion(ctx)
		named := a.service != "" || a.socket != ""
		if a.output == "json" && (err == nil || !named) {
			a.json(struct {
				Proxyctl control.VersionInfo  `json:"proxyctl"`
				Proxyd   *control.VersionInfo `json:"proxyd"`
			}{own, running})
		}
		if a.output == "text" {
			a.say("proxyctl %s", versionLine(own))
			if running != nil {
				a.say("proxyd   %s", versionLine(*running))
			}
		}
		if err != nil && !named && (errors.Is(err, control.ErrNotRunning) || errors.Is(err, control.ErrUsage)) {
			return nil // none runs, or several: nobody asked for one
		}
		return err
	})
}

func (a *app) runningVersion(ctx context.Context) (*control.VersionInfo, error) {
	client, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	v, err := client.Version(ctx)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func versionLine(v control.VersionInfo) string {
	line := clean(v.Version)
	if v.Revision != "" {
		line += ", revision " + clean(v.Revision)
	}
	if v.Modified {
		line += ", changed since"
	}
	return line + ", built with " + clean(v.Go)
}
