package process

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// notice remembers who belongs to p by the tree, groups and sessions: when a
// parent dies, its children no longer point to it. What has ended is forgotten,
// unless its number still names a group or session. The main process stays: all
// may have been read before it was there.
func (p *Process) notice(all map[int]stat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noticeLocked(all)
}

func (p *Process) noticeLocked(all map[int]stat) {
	if p.released {
		return
	}
	used := map[int]bool{}
	for _, s := range all {
		used[s.pgrp], used[s.session] = true, true
	}
	for pid, start := range p.known {
		s, alive := all[pid]
		if alive && s.start != start || !alive && !used[pid] && pid != p.id.PID {
			delete(p.known, pid) // the number is free, or another's
		}
	}
	self := os.Getpid()
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			if _, ok := p.known[pid]; ok || pid == self || pid == 1 {
				continue
			}
			if p.knows(s.ppid) || p.knows(s.pgrp) || p.knows(s.session) {
				p.known[pid] = s.start
				grown = true
			}
		}
	}
}

func (p *Process) knows(pid int) bool {
	_, ok := p.known[pid]
	return ok
}

// members gives the living processes that belong to p, by all that doc.go lists.
func (p *Process) members() ([]stat, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	rivals := p.rivals(all)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return nil, nil // the numbers may be others' by now
	}
	p.noticeLocked(all)
	self := os.Getpid()
	for pid, s := range all {
		if !p.knows(pid) && pid != self && pid != 1 && !s.dead() && !rivals.belongs(s) && p.shows(s, rivals.count) {
			p.known[pid] = s.start
		}
	}
	p.noticeLocked(all) // and their descendants
	var list []stat
	for pid, s := range all {
		if p.knows(pid) && !s.dead() {
			list = append(list, s)
		}
	}
	return list, nil
}

// Owns says whether a process that is alive or not yet reaped belongs to p.
func (p *Process) Owns(pid int) bool {
	if pid <= 1 || pid == os.Getpid() {
		return false
	}
	all, err := processes()
	if err != nil {
		return false
	}
	s, ok := all[pid]
	if !ok {
		return false
	}
	rivals := p.rivals(all)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return false
	}
	p.noticeLocked(all)
	if !p.knows(pid) && !rivals.belongs(s) && p.shows(s, rivals.count) {
		p.known[pid] = s.start
	}
	return p.knows(pid)
}

// shows says whether a process by itself gives a sign of belonging to p. others
// is how many other generations could have forked an orphan.
func (p *Process) shows(s stat, others func(stat) int) bool {
	if p.out != nil && holdsFifo(s.pid, p.out.dev, p.out.ino) {
		return true
	}
	if generation, ok := p.driver.marked(environ(s.pid)); ok {
		return generation == p.generation
	}
	// An orphan without a mark that came to us: ours if nobody else's.
	return p.child && s.start >= p.id.StartTime && children.stranger(s) && others(s) == 0
}

// marked gives the generation that an environment names, if it is one of this
// service's.
func (d *Driver) marked(env map[string]string) (generation uint64, ok bool) {
	if env[markControl] != d.config.Marker {
		return 0, false
	}
	generation, err := strconv.ParseUint(env[markGeneration], 10, 64)
	return generation, err == nil
}

// holdsFifo says whether a process's standard output or error is that file.
func holdsFifo(pid int, dev, ino uint64) bool {
	for _, fd := range []string{"1", "2"} {
		var st unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(pid)+"/fd/"+fd, &st) == nil && st.Dev == dev && st.Ino == ino {
			return true
		}
	}
	return false
}

// rivals are the other processes that are watched, with what is known to belong
// to them: a second run of the same generation carries the same marks.
type rivals struct {
	known  map[int]uint64
	starts []uint64 // of those that are our children
}

func (p *Process) rivals(all map[int]stat) rivals {
	r := rivals{known: map[int]uint64{}}
	for _, q := range children.processes() {
		if q == p {
			continue
		}
		q.mu.Lock()
		q.noticeLocked(all)
		for pid, start := range q.known {
			r.known[pid] = start
		}
		q.mu.Unlock()
		if q.child {
			r.starts = append(r.starts, q.id.StartTime)
		}
	}
	return r
}

func (r rivals) belongs(s stat) bool { return r.known[s.pid] == s.start && s.start != 0 }

// count tells how many of them are old enough to have forked s.
func (r rivals) count(s stat) int {
	n := 0
	for _, start := range r.starts {
		if start <= s.start {
			n++
		}
	}
	return n
}
