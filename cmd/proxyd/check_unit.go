package main

import (
	"context"
	"fmt"
	"time"

	"github.com/seed8fae2174/proxyd/systemd"
)

// checkTimeout bounds what check asks of systemd.
const checkTimeout = 10 * time.Second

// checkTemplate has systemd read the unit of a generation that there will not be.
func (c *checking) checkTemplate(ctx context.Context, release string) error {
	b := c.config.Backend
	if b.Driver != "systemd" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	units, err := systemd.New(ctx, systemd.Config{Unit: driverTemplate(b.Unit), User: b.isUsers()})
	if err != nil {
		return fmt.Errorf("check unit: %w", err)
	}
	defer units.Close()
	label := release
	if b.namedByFixed() {
		label = b.fixedNames()[0]
	}
	if err := units.Check(ctx, highGeneration, label); err != nil {
		return fmt.Errorf("check unit: %w", err)
	}
	spares, err := units.Spares(ctx, highGeneration, label)
	if err != nil {
		return fmt.Errorf("check unit: %w", err)
	}
	if spares != "" {
		c.say("warning", "KillMode=%s in %s spares processes that its main process leaves: proxyd ends them itself, with TERM and after 5 s with KILL, and the generation has not ended before; write KillMode=mixed there, or leave the line out",
			spares, b.Unit)
	}
	return nil
}
