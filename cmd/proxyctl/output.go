package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// output is stdout. It keeps the first error, so that a verb which could not say
// what it was asked for does not exit with 0: a full disk behind a redirection.
// Nothing is written after that. A closed pipe ends proxyctl by SIGPIPE before.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	o.err = err
	return n, err
}

// SyscallConn lets it be asked what stdout is.
func (o *output) SyscallConn() (syscall.RawConn, error) {
	if c, ok := o.w.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// failure is the error for a verb whose output was lost; nil where none was.
func (a *app) failure() error {
	if a.stdout.err == nil {
		return nil
	}
	e := &control.Error{Code: control.Failed, Message: fmt.Sprintf("write output: %v", a.stdout.err)}
	if a.changed {
		e.Hint = "what was asked for was done: `proxyctl status` shows it"
	}
	return e
}
