package systemd

import (
	"os"
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

func TestMain(m *testing.M) {
	if os.Getenv("PROXYD_STAND_IN") != "" && standIn != nil {
		standIn()
	}
	os.Exit(booted.Run(m.Run))
}

// standIn is what this test binary does when it stands in for proxyd.
var standIn func()

// need skips a test for want of something, or fails it where all must run.
func need(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
		t.Fatalf("everything is required, but %s", reason)
	}
	t.Skip(reason)
}
