// Package failure runs the trials of what fails, changes and goes down. What they
// do is written in package trial.
package failure

import (
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/trial"
)

func TestMain(m *testing.M) { trial.Main(m) }

func TestTemplatesThatFail(t *testing.T)  { trial.TemplatesThatFail(t) }
func TestReboot(t *testing.T)             { trial.Reboot(t) }
func TestReload(t *testing.T)             { trial.Reload(t) }
func TestWhatSystemdIsTold(t *testing.T)  { trial.WhatSystemdIsTold(t) }
func TestWatchdog(t *testing.T)           { trial.Watchdog(t) }
func TestTheTemplateChanges(t *testing.T) { trial.TheTemplateChanges(t) }
func TestTheDriverChanges(t *testing.T)   { trial.TheDriverChanges(t) }
