package control

import (
	"context"
	"errors"
	"net/http"
)

// Code says in one word why a request was not done.
type Code string

// The codes, each with its exit code of proxyctl.
const (
	Failed       Code = "failed"        // 1
	Usage        Code = "usage"         // 2: the request itself is wrong
	NotRunning   Code = "not_running"   // 3: no proxyd answers
	NotPermitted Code = "not_permitted" // 4
	NotReady     Code = "not_ready"     // 5: the new generation was not ready, nothing changed
	Superseded   Code = "superseded"    // 6: another operation runs or came first
	Timeout      Code = "timeout"       // 75: waited long enough; what was asked for goes on
)

// Error is why a request was not done, in a form to be shown. A Service may
// return one; any other error of a Service is sent as Failed.
type Error struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`   // what to do next
	Output  []string `json:"output,omitempty"` // the last lines that the generation wrote
}

func (e *Error) Error() string { return e.Message }

// Is makes every Error with the same code equal to the sentinels below.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// Sentinels for errors.Is; each matches every Error of its code.
var (
	ErrNotRunning   error = &Error{Code: NotRunning}
	ErrNotPermitted error = &Error{Code: NotPermitted}
	ErrNotReady     error = &Error{Code: NotReady}
	ErrSuperseded   error = &Error{Code: Superseded}
	ErrTimeout      error = &Error{Code: Timeout}
	ErrUsage        error = &Error{Code: Usage}
)

// ExitCode gives proxyctl's exit code for a code. An unknown one, from a newer
// proxyd, is a plain failure.
func (c Code) ExitCode() int {
	switch c {
	case Usage:
		return 2
	case NotRunning:
		return 3
	case NotPermitted:
		return 4
	case NotReady:
		return 5
	case Superseded:
		return 6
	case Timeout:
		return 75
	default:
		return 1
	}
}

func (c Code) httpStatus() int {
	switch c {
	case Usage:
		return http.StatusBadRequest
	case NotPermitted:
		return http.StatusForbidden
	case NotReady:
		return http.StatusUnprocessableEntity
	case Superseded:
		return http.StatusConflict
	case NotRunning:
		return http.StatusServiceUnavailable
	case Timeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// asError gives err as an Error.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Timeout, Message: err.Error()}
	default:
		return &Error{Code: Failed, Message: err.Error()}
	}
}
