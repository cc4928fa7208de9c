package proxy

import (
	"sync"

	"golang.org/x/sys/unix"
)

// command is something that a loop does between two turns.
type command struct {
	what     order
	route    *Route
	fd       int32
	listener int
	do       func()
	done     *sync.WaitGroup
}

type order uint8

const (
	look  order = iota // at the route and the limits: accept or not
	cut                // what is left on a route
	adopt              // a connection that another loop accepted
	run                // any function, for tests that look inside
	stop
)

// post gives the loop a command; done is released when it was carried out, at
// once if the loop has ended. False: it never will be.
func (l *loop) post(c command) bool {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		if c.done != nil {
			c.done.Done()
		}
		return false
	}
	l.posted = append(l.posted, c)
	l.rouse()
	l.mu.Unlock()
	return true
}

// rouse makes the loop take a turn soon. mu is held, and the loop is not over.
func (l *loop) rouse() {
	one := [8]byte{1}
	unix.Write(int(l.wake), one[:])
}

// obey carries out the commands; true ends the loop.
func (l *loop) obey() bool {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	ended := false
	for _, c := range posted {
		switch c.what {
		case look:
			l.listen()
		case cut:
			l.slab.all(func(x *conn) {
				if x.cell >= 0 && l.cells[x.cell].route == c.route {
					l.abort(x)
				}
			})
		case adopt:
			if ended {
				l.os.reset(c.fd)
				l.proxy.leave()
				break
			}
			l.admit(c.fd, c.listener)
		case run:
			c.do()
		case stop:
			l.close()
			ended = true
		}
		if c.done != nil {
			c.done.Done()
		}
	}
	return ended
}
