package systemd

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// What is no generation any more ends by its unit's own rules: it has the time to
// finish what it does. All are told at once, and nobody waits for longer than
// asked.
func TestASweptUnitMayFinish(t *testing.T) {
	booted.Within(t, func(t *testing.T) {
		unitFile(t, "web@.service", `Type=exec
ExecStartPre=sh -c 'mkfifo -m 600 /run/finish-%i'
ExecStart=sh -c 'trap "read x </run/finish-%i; exit 0" TERM; echo ready >/run/finish-%i; sleep infinity & wait'
ExecStopPost=sh -c 'rm /run/finish-%i; echo $SERVICE_RESULT >/run/result-%i'
KillMode=mixed
TimeoutStopSec=infinity
`)
		t.Cleanup(func() { run(t, "rm", "-f", "/run/result-1", "/run/result-2", "/run/result-3") })
		d := newTestDriver(t, "web@{generation}.service")
		for i, name := range []string{"1", "2", "3"} {
			start(t, d, uint64(i+1), "v")
			run(t, "cat", "/run/finish-"+name) // it heeds TERM from here on
		}
		keep, strays := map[string]bool{"web@1.service": true}, []string{"web@2.service", "web@3.service"}
		ended, leaving, err := d.Sweep(t.Context(), keep, time.Millisecond)
		slices.Sort(leaving)
		if err != nil || ended != nil || !slices.Equal(leaving, strays) {
			t.Errorf("ended %v, leaving %v, %v", ended, leaving, err)
		}
		if state := run(t, "systemctl", "show", "-P", "ActiveState", "web@1.service", strays[0], strays[1]); state != "active\n\ndeactivating\n\ndeactivating\n" {
			t.Errorf("the units are %q", state)
		}
		for _, name := range []string{"2", "3"} {
			go func() { // ends when the unit reads it, before it ends
				if err := os.WriteFile("/run/finish-"+name, []byte("go\n"), 0); err != nil {
					t.Error(err)
				}
			}()
		}
		if _, leaving, err = d.Sweep(t.Context(), keep, time.Hour); err != nil || leaving != nil { // one may have ended before
			t.Errorf("then leaving %v, %v", leaving, err)
		}
		for _, name := range []string{"2", "3"} {
			if result := run(t, "cat", "/run/result-"+name); result != "success\n" {
				t.Errorf("unit %s ended with %s", name, result)
			}
		}
	})
}
