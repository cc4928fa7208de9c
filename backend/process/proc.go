package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat is what proc_pid_stat(5) tells of one process.
type stat struct {
	pid, ppid, pgrp, session int
	state                    byte
	threads                  int
	start                    uint64 // ticks since boot; with the pid it names one process
}

// dead says that it runs no more and only waits to be reaped. One whose first
// thread has ended before the others also shows as a zombie, but runs.
func (s stat) dead() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

// readStat gives the stat of a process; the error is os.ErrNotExist or ESRCH
// where there is none.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads a line of proc_pid_stat(5). The second field is the name in
// parentheses and may itself hold anything, so the last ')' ends it.
func parseStat(b []byte) (stat, error) {
	bad := fmt.Errorf("read process stat: %q is malformed", b)
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || shut < open {
		return stat{}, bad
	}
	f := strings.Fields(string(b[shut+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, bad
	}
	var s stat
	var errs [6]error
	s.pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(b[:open])))
	s.state = f[0][0]
	s.ppid, errs[1] = strconv.Atoi(f[1])
	s.pgrp, errs[2] = strconv.Atoi(f[2])
	s.session, errs[3] = strconv.Atoi(f[3])
	s.threads, errs[5] = strconv.Atoi(f[17])
	s.start, errs[4] = strconv.ParseUint(f[19], 10, 64)
	if errors.Join(errs[:]...) != nil {
		return stat{}, bad
	}
	return s, nil
}

// processes gives all processes by pid, those that exit meanwhile left out.
func processes() (map[int]stat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make(map[int]stat, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			all[pid] = s
		}
	}
	return all, nil
}

// environ gives the environment that a process was started with, as far as it
// can be read and was not overwritten (proc_pid_environ(5)). Of several
// variables of a name the first counts, as in getenv(3).
func environ(pid int) map[string]string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	env := map[string]string{}
	for v := range strings.SplitSeq(string(b), "\x00") {
		name, value, ok := strings.Cut(v, "=")
		if _, seen := env[name]; ok && !seen {
			env[name] = value
		}
	}
	return env
}

// command gives the command line of a process for people to read.
func command(pid int) string {
	b, _ := commandLine(pid)
	return cleanLine(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
}

// commandLine gives the arguments, each ended by a zero byte
// (proc_pid_cmdline(5)).
func commandLine(pid int) ([]byte, error) {
	return os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
}

// outputLinks gives the paths of a process's standard output and error, also
// where the file was removed since.
func outputLinks(pid int) []string {
	var paths []string
	for _, fd := range []int{1, 2} {
		if path, err := linkOf(pid, fd); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// linkOf gives the path of an open file (proc_pid_fd(5)).
func linkOf(pid, fd int) (string, error) {
	path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd))
	return strings.TrimSuffix(path, " (deleted)"), err
}
