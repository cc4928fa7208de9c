package control

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// events answers with one JSON document a line: what is in the history after
// number `after`, and with follow=1 what comes, until the client or the server
// goes away or the Service ends the stream.
func (s *Server) events(w http.ResponseWriter, r *http.Request, a ask) {
	after, follow, err := a.eventsQuery()
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var entries <-chan HistoryEntry
	if follow {
		entries, err = s.cfg.Service.Events(ctx, after)
	} else {
		entries, err = s.past(ctx, after)
	}
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	for {
		if len(entries) == 0 { // what was written may be all for a while
			_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
			if rc.Flush() != nil {
				return
			}
		}
		select {
		case e, ok := <-entries:
			if !ok {
				return
			}
			b, err := Encode(e)
			if err != nil {
				panic(err)
			}
			_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
			if _, err := w.Write(b); err != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-s.ending:
			return
		}
	}
}

func (a ask) eventsQuery() (after uint64, follow bool, err error) {
	if err = a.onlyQuery("after", "follow"); err != nil {
		return 0, false, err
	}
	if after, err = a.number("after"); err != nil {
		return 0, false, err
	}
	switch v := a.query.Get("follow"); v {
	case "", "0":
	case "1":
		follow = true
	default:
		err = &Error{Code: Usage, Message: fmt.Sprintf("query: follow: want 0 or 1, got %q", v)}
	}
	return after, follow, err
}

// past gives the history after a number as a stream that ends.
func (s *Server) past(ctx context.Context, after uint64) (<-chan HistoryEntry, error) {
	all, err := s.cfg.Service.History(ctx, 0)
	if err != nil {
		return nil, err
	}
	entries := make(chan HistoryEntry, len(all))
	for _, e := range all {
		if e.Seq > after {
			entries <- e
		}
	}
	close(entries)
	return entries, nil
}
