package systemd

import (
	"fmt"
	"os"
	"strings"
)

// unitOf gives the unit that a process is in, by its control group, which it
// cannot choose and its children inherit: see cgroups(7) and systemd's
// cg_path_get_unit. "" where it is in none of the manager's. With user it is the
// unit of the process's user manager.
func unitOf(pid int, user bool) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("read control group of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		// "0::PATH" is version 2; before that systemd has a hierarchy of its own.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && (fields[0] == "0" || fields[1] == "name=systemd") {
			if u := unitOfGroup(fields[2], user); u != "" {
				return u, nil
			}
		}
	}
	return "", nil
}

// unitOfGroup finds the unit in a control group's path: slices come first, then
// the unit, then what the unit made by itself.
func unitOfGroup(path string, user bool) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if user {
		// A user manager runs in user@UID.service and begins again below it.
		for i, p := range parts {
			if strings.HasPrefix(p, "user@") && strings.HasSuffix(p, ".service") {
				return unitOfGroup(strings.Join(parts[i+1:], "/"), false)
			}
			if !strings.HasSuffix(p, ".slice") {
				return ""
			}
		}
		return ""
	}
	for _, p := range parts {
		// cg_escape puts a "_" before names that could be the kernel's.
		p = strings.TrimPrefix(p, "_")
		switch {
		case strings.HasSuffix(p, ".slice"):
		case strings.HasSuffix(p, ".service"), strings.HasSuffix(p, ".scope"):
			return p
		default:
			return ""
		}
	}
	return ""
}
