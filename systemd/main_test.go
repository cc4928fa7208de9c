package systemd

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/booted"
	"go.uber.org/goleak"
)

// TestMain checks that no test leaves a goroutine or a descriptor, inside the
// private systemd as well.
func TestMain(m *testing.M) {
	if os.Getenv("PROXYD_STAND_IN") != "" && standIn != nil {
		standIn()
	}
	descriptors := countDescriptors()
	code := m.Run()
	if err := booted.CloseShared(); err != nil {
		fmt.Fprintln(os.Stderr, "close the machine:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left:", err)
		code = 1
	}
	if now := countDescriptors(); now > descriptors {
		fmt.Fprintf(os.Stderr, "descriptors left: %d before, %d after\n", descriptors, now)
		code = 1
	}
	os.Exit(code)
}

// standIn is what this test binary does when it stands in for proxyd.
var standIn func()

// countDescriptors counts this process's descriptors with the two that the
// runtime opens for its poller at the first pipe or socket.
func countDescriptors() int {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	defer w.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// need skips a test for want of something, or fails it where all must run.
func need(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("PROXYD_TEST_REQUIRE") == "all" {
		t.Fatalf("everything is required, but %s", reason)
	}
	t.Skip(reason)
}
