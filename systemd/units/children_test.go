package units

import (
	"slices"
	"strings"
	"testing"
)

// settings gives the names of what a unit sets in [Service], once each.
func settings(text string) (names []string) {
	_, text, _ = strings.Cut(text, "\n[Service]\n")
	text, _, _ = strings.Cut(text, "\n[")
	for line := range strings.Lines(text) {
		name, _, ok := strings.Cut(line, "=")
		if ok && name[0] != '#' && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Under the exec driver children have what proxyd has. So each setting of the
// service is of proxyd alone, or is one that children are to have, or is another
// one in the drop-in: whoever adds one says which.
func TestWhatChildrenInherit(t *testing.T) {
	own := []string{"Type", "NotifyAccess", "NonBlocking", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStartSec",
		"WatchdogSec", "OOMPolicy", "FileDescriptorStoreMax", "RuntimeDirectory", "RuntimeDirectoryPreserve", "StateDirectory",
		"StateDirectoryMode"}
	theirs := []string{"User", "Group", "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "LockPersonality",
		"PrivateMounts", "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
		"ProtectKernelTunables", "RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallErrorNumber"}
	dropIn := settings(ExecDriver())
	if len(dropIn) < 10 {
		t.Fatalf("the drop-in sets only %v", dropIn)
	}
	all := settings(Service("/usr/bin"))
	for _, name := range all {
		if n := len(slices.DeleteFunc([][]string{own, theirs, dropIn}, func(l []string) bool { return !slices.Contains(l, name) })); n != 1 {
			t.Errorf("%s is in %d of the lists", name, n)
		}
	}
	for _, name := range dropIn {
		if !slices.Contains(all, name) {
			t.Errorf("the drop-in sets %s, which the service does not", name)
		}
	}
}
