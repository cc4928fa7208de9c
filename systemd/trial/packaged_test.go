package trial

import (
	"os"
	"strings"
	"testing"
)

// A service whose name is by chance that of a package's template: nobody means
// proxyd to start and stop that package's units.
func TestATemplateOfAPackage(t *testing.T) {
	within(t, func(t *testing.T) { templateOfAPackage(t) })
}

func templateOfAPackage(t *testing.T) {
	const packaged = "/usr/lib/systemd/system/shop@.service"
	write(t, packaged, "[Service]\nExecStart=sleep infinity\n")
	t.Cleanup(func() { run(t, "rm", packaged) })
	out, code := try(t, built+"/proxyctl", "install", "shop", "--listen", "446")
	if code != 1 || !strings.Contains(out, packaged+" is there already") || !strings.Contains(out, "`--template shop` is for") {
		t.Errorf("install: exit code %d\n%s", code, out)
	}
	if rule, err := os.ReadFile("/etc/polkit-1/rules.d/50-proxyd.rules"); err == nil && strings.Contains(string(rule), "shop") {
		t.Errorf("proxyd may start them:\n%s", rule)
	}
	for _, flag := range []string{"--template=shop", "--unit=shop@{generation}.service", "--driver=exec"} {
		run(t, built+"/proxyctl", "install", "shop", "--listen", "446", flag)
		run(t, "proxyctl", "uninstall", "--purge", "shop")
	}
	if out, code := try(t, built+"/proxyctl", "install", "user", "--listen", "446"); code != 2 || !strings.Contains(out, "proxyd's own or systemd's") {
		t.Errorf("install user: exit code %d\n%s", code, out)
	}
}
