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
	return nil
}
