package systemd

import (
	"fmt"
	"path/filepath"
	"syscall"
)

// failedCommand finds the command that failed since begun and made the unit fail,
// in a property of the type a(sasbttttuii): see "Properties" of
// org.freedesktop.systemd1.Service in org.freedesktop.systemd1(5). Times are of
// CLOCK_MONOTONIC, in µs. One that systemd ended because the main process had, at
// mainEnd, is not it.
func failedCommand(property any, begun, mainEnd uint64) command {
	all, _ := property.([][]any)
	for _, c := range all {
		if len(c) != 10 {
			continue
		}
		path, _ := c[0].(string)
		ignored, _ := c[2].(bool)
		started, _ := c[4].(uint64)
		ended, _ := c[6].(uint64)
		code, _ := c[8].(int32)
		status, _ := c[9].(int32)
		if ignored || started < begun || ended < started || code == 0 || code == cldExited && status == 0 {
			continue
		}
		if mainEnd < begun || ended <= mainEnd {
			return command{path, int(code), int(status)}
		}
	}
	return command{}
}

// why says that a command of the unit has failed, "" where none has.
func (c command) why(setting string) string {
	switch {
	case c.code == 0:
		return ""
	case c.code == cldExited:
		return fmt.Sprintf("its unit's %s (%s) failed with status %d", setting, filepath.Base(c.path), c.status)
	}
	return fmt.Sprintf("its unit's %s (%s) was ended by signal %d (%s)", setting, filepath.Base(c.path), c.status, syscall.Signal(c.status))
}
