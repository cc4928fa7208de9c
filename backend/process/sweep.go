package process

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
)

// Stray is a process that Sweep has ended.
type Stray struct {
	Generation uint64
	PID        int
	Command    string // without control characters
}

// Found is a process that belongs to a generation of this service.
type Found struct {
	Generation uint64
	Release    string // PROXYD_RELEASE; empty where the environment was overwritten
	Identity   Identity
	Main       bool // the one that Start has started
}

// Running finds all processes of this service by their marks, for when it is not
// known any more what was started. Those that are being launched are waited for.
func (d *Driver) Running() ([]Found, error) {
	seen, err := d.find()
	if err != nil {
		return nil, fmt.Errorf("find processes: %w", err)
	}
	var list []Found
	for _, s := range seen {
		id, err := identify(s.stat)
		if err != nil {
			return nil, err
		}
		list = append(list, Found{Generation: s.generation, Release: s.release, Identity: id, Main: s.main})
	}
	slices.SortFunc(list, func(a, b Found) int {
		return cmp.Or(
			cmp.Compare(a.Generation, b.Generation),
			cmp.Compare(a.Identity.StartTime, b.Identity.StartTime),
			cmp.Compare(a.Identity.PID, b.Identity.PID),
		)
	})
	return list, nil
}

// Sweep ends every process of this service that belongs to a generation not in
// keep, and tells which these were.
func (d *Driver) Sweep(keep map[uint64]bool) ([]Stray, error) {
	strays := map[int]Stray{}
	_, err := killAll(func() ([]stat, error) {
		seen, err := d.find()
		var list []stat
		for _, s := range seen {
			if !keep[s.generation] {
				list = append(list, s.stat)
				strays[s.pid] = Stray{Generation: s.generation, PID: s.pid, Command: command(s.pid)}
			}
		}
		return list, err
	})
	var list []Stray
	for _, s := range strays {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Stray) int { return cmp.Compare(a.PID, b.PID) })
	if err != nil {
		return list, fmt.Errorf("sweep processes: %w", err)
	}
	return list, nil
}

// seen is a process with the generation that it belongs to.
type seen struct {
	stat
	generation uint64
	release    string
	main       bool
}

// find gives the living processes of this service: by their marks, and the
// descendants of those.
func (d *Driver) find() (map[int]*seen, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	found := map[int]*seen{}
	mains := map[uint64]bool{}
	for pid, s := range all {
		if pid == self || pid == 1 || s.dead() {
			continue
		}
		if one := d.recognise(s); one != nil {
			found[pid] = one
			mains[one.generation] = mains[one.generation] || one.main
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			parent := found[s.ppid]
			if parent != nil && found[pid] == nil && pid != self && !s.dead() {
				found[pid] = &seen{stat: s, generation: parent.generation, release: parent.release}
				grown = true
			}
		}
	}
	for generation, has := range mains {
		if !has {
			elect(generation, found)
		}
	}
	return found, nil
}

// recognise tells from a process's marks what it is, or gives nil.
func (d *Driver) recognise(s stat) *seen {
	id, err := identify(s)
	if err != nil {
		return nil
	}
	if isStub(s.pid) {
		pidfd, err := id.open()
		if err != nil {
			return nil
		}
		defer closeFD(pidfd)
		env := environ(s.pid)
		if _, ours := d.marked(env); !ours || children.has(s.pid) || !launchOver(id, pidfd) {
			return nil // another's, one of a Start that goes on, or over
		}
	}
	env := environ(s.pid)
	if generation, ok := d.marked(env); ok {
		return &seen{stat: s, generation: generation, release: env[markRelease], main: env[markMain] == strconv.Itoa(s.pid)}
	}
	if d.config.OutputOf != nil {
		for _, path := range outputLinks(s.pid) {
			if generation, ok := d.config.OutputOf(path); ok {
				return &seen{stat: s, generation: generation}
			}
		}
	}
	return nil
}

// elect picks the main process of a generation that has overwritten its
// environment: the oldest that leads its group and whose parent is none of it.
func elect(generation uint64, found map[int]*seen) {
	var best *seen
	for _, s := range found {
		parent := found[s.ppid]
		if s.generation != generation || s.pgrp != s.pid || parent != nil && parent.generation == generation {
			continue
		}
		if best == nil || s.start < best.start {
			best = s
		}
	}
	if best != nil {
		best.main = true
	}
}
