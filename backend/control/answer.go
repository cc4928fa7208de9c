package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"
)

// maxBody is how many bytes the JSON of a request may have.
const maxBody = 64 << 10

// ask is one request on its way to the Service.
type ask struct {
	query url.Values
	body  []byte
	by    string
}

// reads and changes are every path of the protocol.
var (
	reads = map[string]func(*Server, context.Context, ask) (any, error){
		"/v1/status":  (*Server).status,
		"/v1/history": (*Server).history,
		"/v1/version": (*Server).version,
	}
	changes = map[string]func(*Server, context.Context, ask) (Result, error){
		"/v1/stage":   (*Server).stage,
		"/v1/promote": (*Server).promote,
		"/v1/revert":  (*Server).revert,
		"/v1/retire":  (*Server).retire,
		"/v1/stop":    (*Server).stop,
		"/v1/hold":    (*Server).hold,
		"/v1/resume":  (*Server).resume,
		"/v1/reload":  (*Server).reload,
	}
)

const (
	eventsPath   = "/v1/events"
	handoverPath = "/v1/handover"
)

// answer is the whole of the protocol's HTTP side. It refuses in the order path,
// method, permission, form.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	defer s.recoverAnswer(w, r)
	read, change := reads[r.URL.Path], changes[r.URL.Path]
	method := http.MethodGet
	if change != nil || r.URL.Path == handoverPath {
		method = http.MethodPost
	}
	switch {
	case read == nil && change == nil && r.URL.Path != eventsPath && r.URL.Path != handoverPath:
		s.refuse(w, http.StatusNotFound, &Error{Code: Usage,
			Message: fmt.Sprintf("there is no %q in this protocol", r.URL.Path), Hint: "GET /v1/status is a beginning"})
		return
	case r.Method != method:
		w.Header().Set("Allow", method)
		s.refuse(w, http.StatusMethodNotAllowed, &Error{Code: Usage,
			Message: fmt.Sprintf("%s takes %s, not %q", r.URL.Path, method, r.Method)})
		return
	}
	c := connOf(r.Context())
	if change != nil && !c.trusted {
		s.refuse(w, http.StatusForbidden, &Error{Code: NotPermitted,
			Message: fmt.Sprintf("uid %d may look, but not change anything", c.uid),
			Hint:    fmt.Sprintf("only root and proxyd's own user (uid %d) may", s.gate.own)})
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, &Error{Code: Usage, Message: "query: " + err.Error()})
		return
	}
	a := ask{query: q, by: c.name()}
	if change != nil {
		if a.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
			s.refuseBody(w, err)
			return
		}
	}
	// The request is here as a whole: from now on its connection counts as in use.
	c.setServing(true)
	defer c.setServing(false)

	switch {
	case change != nil:
		begun := time.Now()
		res, err := change(s, context.WithoutCancel(r.Context()), a)
		if res.TookMS == 0 {
			res.TookMS = time.Since(begun).Milliseconds()
		}
		s.reply(w, res, err)
	case r.URL.Path == handoverPath:
		s.handover(w, r, c)
	case read != nil:
		v, err := read(s, r.Context(), a)
		s.reply(w, v, err)
	default:
		s.events(w, r, a)
	}
}

// recoverAnswer keeps a panic in one request from ending proxyd.
func (s *Server) recoverAnswer(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.cfg.Log.Error("a control request panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if w.Header().Get("Content-Type") != "" { // an answer was begun, it can only be cut
			panic(http.ErrAbortHandler)
		}
		s.refuse(w, http.StatusInternalServerError, &Error{Code: Failed,
			Message: "proxyd made a mistake with this request", Hint: "its log has the details"})
	}
}

func (s *Server) refuseBody(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		s.refuse(w, http.StatusRequestEntityTooLarge, &Error{Code: Usage,
			Message: fmt.Sprintf("request body: more than %d bytes", tooLarge.Limit)})
		return
	}
	s.refuse(w, http.StatusBadRequest, &Error{Code: Usage, Message: "request body: " + err.Error()})
}

// refuse answers with an error before the request was read to its end, so the
// connection is of no more use.
func (s *Server) refuse(w http.ResponseWriter, status int, e *Error) {
	w.Header().Set("Connection", "close")
	s.write(w, status, errorDocument{e})
}

func (s *Server) reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		e := asError(err)
		s.write(w, e.Code.httpStatus(), errorDocument{e})
		return
	}
	s.write(w, http.StatusOK, v)
}

// errorDocument is how an error is sent.
type errorDocument struct {
	Error *Error `json:"error"`
}

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	b, err := Encode(v)
	if err != nil { // no type of the protocol can fail to encode
		panic(err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// number reads one whole number from the query; 0 where it is not there.
func (a ask) number(key string) (uint64, error) {
	if !a.query.Has(key) {
		return 0, nil
	}
	n, err := strconv.ParseUint(a.query.Get(key), 10, 32)
	if err != nil {
		return 0, &Error{Code: Usage, Message: fmt.Sprintf("query: %s: want a whole number, got %q", key, a.query.Get(key))}
	}
	return n, nil
}

// onlyQuery refuses any other key.
func (a ask) onlyQuery(known ...string) error {
next:
	for key, values := range a.query {
		if len(values) > 1 {
			return &Error{Code: Usage, Message: fmt.Sprintf("query: %q is given twice", key)}
		}
		for _, k := range known {
			if k == key {
				continue next
			}
		}
		return &Error{Code: Usage, Message: fmt.Sprintf("query: unknown key %q", key)}
	}
	return nil
}
