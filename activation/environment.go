package activation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Tell sends a state such as "READY=1" to the service manager that started this
// process (sd_notify(3)). Where none asked to be told (no NOTIFY_SOCKET) it does
// nothing.
func Tell(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("tell service manager: %w", err)
	}
	return nil
}

// privateVars are meant for the one process that the service manager started: a
// child that believed them would take descriptors that it does not have, or
// speak in proxyd's name.
var privateVars = append([]string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}, listenVars...)

// ScrubEnv gives env without what the service manager meant for proxyd alone:
// LISTEN_PID and its like, NOTIFY_SOCKET, WATCHDOG_PID and WATCHDOG_USEC. Other
// names that begin alike (LISTEN_ADDRESS) stay. env is not changed.
func ScrubEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(privateVars, name)
	})
}
