package trial

import (
	"os"
	"strings"
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/booted"
)

// The example unit as it is shipped, with the config that its comment names and a
// program at the place that it names, serves and is promoted.
func TestTheShippedExample(t *testing.T) {
	const copied = "/booted/web@.service"
	if !booted.Inside() {
		text, err := os.ReadFile("../units/web@.service")
		if err != nil {
			t.Fatal(err)
		}
		if err := machine(t).WriteFile(copied, string(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	within(t, func(t *testing.T) {
		text, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		var config strings.Builder
		for line := range strings.Lines(string(text)) {
			if setting, ok := strings.CutPrefix(line, "#\t"); ok {
				config.WriteString(setting)
			}
		}
		if !strings.Contains(config.String(), "[backend]\n") {
			t.Fatalf("the comment's config is %q", config.String())
		}
		releases(t, "web", "v1", "v2")
		install(t, "web", webPort, string(text), config.String())
		run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
		mustAnswer(t, web, "v1")
		run(t, "proxyctl", "promote", "v2")
		mustAnswer(t, web, "v2")
		run(t, "proxyctl", "revert")
		mustAnswer(t, web, "v1")
		if g := mustStatus(t, "web").current(); property(t, g.Unit, "FragmentPath") != "/etc/systemd/system/web@.service" {
			t.Errorf("generation %d is unit %s", g.ID, g.Unit)
		}
	})
}
