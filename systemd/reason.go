package systemd

import (
	"fmt"
	"syscall"
)

// si_code of waitid(2), which ExecMainCode is.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// notRun says why a unit that was to be started has run nothing. job is the start
// job's result, "" where unknown.
func notRun(s state, job string) string {
	switch {
	case s.skipped && (job == "" || job == "done"), job == "skipped":
		return "its unit was skipped, for a condition of it does not hold"
	case job == "dependency":
		return "a unit that its unit needs did not start (dependency)"
	case job == "timeout":
		return "its unit did not begin to start in time (timeout)"
	case job == "canceled":
		return "somebody canceled the start of its unit (canceled)"
	case job == "assert":
		return "an assertion of its unit does not hold (assert)"
	case job != "" && job != "done":
		return fmt.Sprintf("its unit was not started (%s)", job)
	}
	// systemd has forgotten it already, as it does without an error: the lines of
	// the journal tell more.
	return "its unit was skipped, or ran what ended at once without an error"
}

// ended says how a run ended.
func ended(s state) string {
	how := process(s)
	switch s.result {
	case "timeout":
		return "its unit took too long to start or to stop (timeout); " + how
	case "oom-kill":
		return "it was ended for want of memory (oom-kill); " + how
	case "watchdog":
		return "it did not feed its watchdog in time (watchdog); " + how
	case "start-limit-hit":
		return "its unit was started too often (start-limit-hit)"
	case "", "success":
		return how
	case "exit-code", "signal", "core-dump":
		if why := s.post.why("ExecStartPost="); why != "" {
			return why // by which systemd ended the main process
		}
		if s.exited {
			return how
		}
		return fmt.Sprintf("its unit failed before its main process ran (%s)", s.result)
	}
	return fmt.Sprintf("its unit failed (%s); %s", s.result, how)
}

// process says how the main process ended.
func process(s state) string {
	switch {
	case s.exited && s.code == cldExited:
		if step := steps[s.status]; step != "" {
			return fmt.Sprintf("its process exited with status %d: systemd could not %s", s.status, step)
		}
		return fmt.Sprintf("its process exited with status %d", s.status)
	case s.exited && (s.code == cldKilled || s.code == cldDumped):
		text := fmt.Sprintf("its process was ended by signal %d (%s)", s.status, syscall.Signal(s.status))
		if s.code == cldDumped {
			text += " and dumped core"
		}
		return text
	}
	return "its process ended"
}

// steps are what systemd does between fork and exec, by the status with which
// the process exits when it fails ("Process Exit Codes" in systemd.exec(5)).
var steps = map[int]string{
	200: "change to its working directory (CHDIR)",
	203: "execute its command (EXEC)",
	205: "set its resource limits (LIMITS)",
	208: "set up its standard input (STDIN)",
	209: "set up its standard output (STDOUT)",
	214: "set its scheduling (SETSCHEDULER)",
	216: "set its group (GROUP)",
	217: "set its user (USER)",
	218: "set its capabilities (CAPABILITIES)",
	219: "set up its control group (CGROUP)",
	222: "set up its standard error (STDERR)",
	225: "set up its network namespace (NETWORK)",
	226: "set up its mount namespace (NAMESPACE)",
	228: "set up its system call filter (SECCOMP)",
	233: "make its runtime directory (RUNTIME_DIRECTORY)",
	235: "change the owner of its socket (CHOWN)",
	238: "make its state directory (STATE_DIRECTORY)",
	239: "make its cache directory (CACHE_DIRECTORY)",
	240: "make its logs directory (LOGS_DIRECTORY)",
	241: "make its configuration directory (CONFIGURATION_DIRECTORY)",
	243: "set up its credentials (CREDENTIALS)",
}
