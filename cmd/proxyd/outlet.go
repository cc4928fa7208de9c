package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	outletRoom     = 1 << 20                // bytes that wait to be written
	outputPatience = time.Second            // of a generation, with a reader that stands still
	outletGrace    = 500 * time.Millisecond // for what is left at the end
)

// outlet hands lines on to somebody who may not read them: a full pipe, a
// terminal that was stopped, a journald that hangs. Write never waits for longer
// than patience, so neither the supervisor, which logs, nor a generation, which
// writes, ever depends on a reader.
//
// Lines come out whole and in order. While the reader reads none is lost: with
// patience, Write then waits for room. Where the reader stands still for longer
// than patience and there is no room, lines are dropped until half of the room is
// free again, and it is said how many they were.
type outlet struct {
	to       io.Writer
	room     int
	patience time.Duration
	lost     func(lines int) []byte // gives a line for their place, or tells elsewhere

	mu       sync.Mutex
	queue    [][]byte // one Write each
	waiting  int      // bytes in queue, and of the one that is being written
	dropping bool
	dropped  int // lines that were not told of yet
	ending   bool
	wake     chan struct{} // has room for one: something is to be done
	moved    chan struct{} // closed, and made anew, whenever something was written
	done     chan struct{} // closed when the writer has ended
}

// newOutlet starts an outlet, which close ends.
func newOutlet(to io.Writer, patience time.Duration, lost func(lines int) []byte) *outlet {
	o := &outlet{
		to: to, room: outletRoom, patience: patience, lost: lost,
		wake: make(chan struct{}, 1), moved: make(chan struct{}), done: make(chan struct{}),
	}
	go o.write()
	return o
}

// Write takes whole lines. It gives no error: there is nobody to tell.
func (o *outlet) Write(lines []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.fits(len(lines)) && !o.dropping && !o.ending {
		if !o.waitForRoom() {
			o.dropping = true
		}
	}
	if o.dropping && (o.waiting > o.room/2 || !o.fits(len(lines))) || o.ending {
		o.dropped += max(bytes.Count(lines, []byte{'\n'}), 1)
		return len(lines), nil
	}
	o.dropping = false
	o.tellOfLost()
	o.add(bytes.Clone(lines))
	return len(lines), nil
}

// fits: what is larger than all the room still fits where nothing waits.
func (o *outlet) fits(n int) bool { return o.waiting == 0 || o.waiting+n <= o.room }

// waitForRoom waits until something was written, for as long as patience lasts.
func (o *outlet) waitForRoom() bool {
	if o.patience == 0 {
		return false
	}
	moved := o.moved
	o.mu.Unlock()
	defer o.mu.Lock()
	late := time.NewTimer(o.patience)
	defer late.Stop()
	select {
	case <-moved:
		return true
	case <-late.C:
		return false
	}
}

// tellOfLost puts the number of dropped lines in their place.
func (o *outlet) tellOfLost() {
	if o.dropped > 0 {
		if line := o.lost(o.dropped); line != nil {
			o.add(line)
		}
		o.dropped = 0
	}
}

func (o *outlet) add(lines []byte) {
	o.queue = append(o.queue, lines)
	o.waiting += len(lines)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next gives what is to be written next; ok is false where there is nothing.
func (o *outlet) next() (lines []byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		o.tellOfLost()
	}
	if len(o.queue) == 0 {
		return nil, false
	}
	lines, o.queue = o.queue[0], o.queue[1:]
	return lines, true
}

// written makes room for n bytes.
func (o *outlet) written(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting -= n
	close(o.moved)
	o.moved = make(chan struct{})
}

// write hands on what comes. It ends once close was called and nothing is left;
// close waits for it, for a while.
func (o *outlet) write() {
	defer close(o.done)
	for {
		for {
			lines, ok := o.next()
			if !ok {
				break
			}
			_, _ = o.to.Write(lines)
			o.written(len(lines))
		}
		o.mu.Lock()
		over := o.ending && len(o.queue) == 0
		o.mu.Unlock()
		if over {
			return
		}
		<-o.wake
	}
}

// close gives the reader some time to take what is left. What is written later
// is dropped. A reader that stands still keeps the writer, which ends when it
// reads on, or with the process.
func (o *outlet) close() {
	o.mu.Lock()
	o.ending = true
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	late := time.NewTimer(outletGrace)
	defer late.Stop()
	select {
	case <-o.done:
	case <-late.C:
	}
}
