package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processCPU is what a process used since it began, threads that have ended
// included. The clock of a process is named by its inverted PID; see
// clock_getcpuclockid(3) and include/linux/posix-timers_types.h.
func processCPU(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED: nanoseconds from the scheduler, no ticks
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// processesCPU is the sum over pids.
func processesCPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		d, err := processCPU(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// machineIdle is the time that all processors together were idle (or waited for a
// disk, or were taken by the hypervisor) since boot, by the first line of
// /proc/stat; see proc_stat(5). Its step is 10 ms.
func machineIdle() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseIdle(b)
}

func parseIdle(stat []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("parse /proc/stat: %q", line)
	}
	var ticks int64
	for _, column := range []int{4, 5, 8} { // idle, iowait, steal
		n, err := strconv.ParseInt(f[column], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100 everywhere
}

// resident is Rss of all pids together, in bytes, by smaps_rollup, which counts
// pages where statm estimates.
func resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parseRss(b)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func parseRss(rollup []byte) (int64, error) {
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Rss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse smaps_rollup: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("parse smaps_rollup: no Rss")
}

// family is pid and all its descendants, as they are at this moment.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", all[i]))
		for _, t := range tasks {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", all[i], t.Name()))
			for _, f := range strings.Fields(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// meter stands at the start of a measurement.
type meter struct {
	at                    time.Time
	proxyPIDs, others     []int
	proxy, idle, backends time.Duration
}

// spent is what was used between a meter's start and its reading.
type spent struct {
	proxy   time.Duration // by the proxy's processes
	machine time.Duration // by all processors
	foreign time.Duration // by nobody whom the bench knows
}

// startMeter begins to count. others are backends: they are not charged to the
// proxy, only known.
func startMeter(proxyPIDs, others []int) (m meter, err error) {
	m = meter{proxyPIDs: proxyPIDs, others: append(others, os.Getpid())}
	if m.proxy, err = processesCPU(proxyPIDs); err != nil {
		return m, err
	}
	if m.backends, err = processesCPU(m.others); err != nil {
		return m, err
	}
	m.idle, err = machineIdle()
	m.at = time.Now()
	return m, err
}

func (m meter) read() (spent, error) {
	wall := time.Since(m.at)
	idle, err := machineIdle()
	if err != nil {
		return spent{}, err
	}
	proxy, err := processesCPU(m.proxyPIDs)
	if err != nil {
		return spent{}, err
	}
	others, err := processesCPU(m.others)
	if err != nil {
		return spent{}, err
	}
	s := spent{proxy: proxy - m.proxy}
	s.machine = max(0, wall*time.Duration(runtime.NumCPU())-(idle-m.idle))
	s.foreign = max(0, s.machine-s.proxy-(others-m.backends))
	return s, nil
}

// settle waits until pids have nothing left to do: closing the connections of the
// last measurement is not to be counted in the next one. It gives up after 2
// seconds, since a proxy may well have timers.
func settle(pids []int) {
	before, err := processesCPU(pids)
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		now, err2 := processesCPU(pids)
		if err != nil || err2 != nil || now-before < 500*time.Microsecond {
			return
		}
		before = now
	}
}
