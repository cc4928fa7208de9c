package main

import (
	"context"
	"errors"
	"time"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/control"
)

// service adapts the supervisor to the control protocol.
type service struct {
	supervisor *backend.Supervisor
	listeners  []activation.Listener
	direct     *directPath
	reload     func(ctx context.Context, by string) error
}

var _ control.Service = (*service)(nil)

func (s *service) Status(ctx context.Context) (control.Status, error) {
	s.direct.counting.fresh()
	st, err := s.supervisor.Status(ctx)
	if err != nil {
		return control.Status{}, asControl(err)
	}
	out := control.Status{
		Schema: control.Schema, Service: st.Service, State: string(st.State),
		Current: st.Current, Previous: st.Previous, HeldUntil: timeOrNil(st.HeldUntil),
		Listeners: []control.Listener{}, Generations: []control.Generation{},
	}
	path, why := s.direct.of(st.Current)
	for _, g := range groupsOf(s.listeners) {
		out.Listeners = append(out.Listeners, control.Listener{
			Name: g.name, Address: textAddress(g.address), Path: path, Reason: why, Source: g.members[0].Source,
		})
	}
	for _, g := range st.Generations {
		path, _ := s.direct.of(g.ID)
		out.Generations = append(out.Generations, control.Generation{
			ID: g.ID, Release: g.Release, State: string(g.State), Path: path,
			InFlight: g.Counts.InFlight, Accepted: g.Counts.Accepted, ConnectFailures: g.Counts.ConnectFailures,
			BytesFromClients: g.Counts.BytesFromClients, BytesToClients: g.Counts.BytesToClients,
			PID: g.PID, Unit: g.Unit, Since: g.Since, DrainDeadline: timeOrNil(g.DrainDeadline),
			KillAt: timeOrNil(g.KillAt), Reason: g.Reason, Notice: g.Notice,
		})
	}
	return out, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *service) History(ctx context.Context, limit int) ([]control.HistoryEntry, error) {
	entries, err := s.supervisor.History(ctx, limit)
	if err != nil {
		return nil, asControl(err)
	}
	out := make([]control.HistoryEntry, 0, len(entries))
	for _, e := range entries {
		out = append(out, historyEntry(e))
	}
	return out, nil
}

func historyEntry(e backend.Entry) control.HistoryEntry {
	return control.HistoryEntry{
		Seq: e.Seq, Time: e.Time, Event: string(e.Event), Generation: e.Gen, Release: e.Release,
		From: e.From, By: e.By, Reason: e.Reason,
	}
}

func (s *service) Events(ctx context.Context, after uint64) (<-chan control.HistoryEntry, error) {
	entries, err := s.supervisor.Events(ctx, after)
	if err != nil {
		return nil, asControl(err)
	}
	out := make(chan control.HistoryEntry)
	go translateEvents(ctx, entries, out)
	return out, nil
}

// translateEvents ends with its input, which ends with ctx.
func translateEvents(ctx context.Context, in <-chan backend.Entry, out chan<- control.HistoryEntry) {
	defer close(out)
	for e := range in {
		select {
		case out <- historyEntry(e):
		case <-ctx.Done():
			return
		}
	}
}

func (s *service) Version(context.Context) (control.VersionInfo, error) {
	return control.BuildVersion(), nil
}

func (s *service) Stage(ctx context.Context, r control.StageRequest) (control.Result, error) {
	a, err := s.supervisor.Stage(ctx, r.By, r.Release)
	return s.result(ctx, a, err)
}

func (s *service) Promote(ctx context.Context, r control.PromoteRequest) (control.Result, error) {
	asked := time.Now()
	a, err := s.supervisor.Promote(ctx, r.By, r.Generation, r.Release, r.IfCurrent)
	return s.switchResult(ctx, asked, a, err)
}

func (s *service) Revert(ctx context.Context, r control.RevertRequest) (control.Result, error) {
	asked := time.Now()
	a, err := s.supervisor.Revert(ctx, r.By, r.To)
	return s.switchResult(ctx, asked, a, err)
}

func (s *service) Retire(ctx context.Context, r control.RetireRequest) (control.Result, error) {
	a, err := s.supervisor.Retire(ctx, r.By)
	return s.result(ctx, a, err)
}

func (s *service) Stop(ctx context.Context, r control.StopRequest) (control.Result, error) {
	a, err := s.supervisor.Stop(ctx, r.By, r.Generation, backend.StopMode(r.Mode))
	return s.result(ctx, a, err)
}

func (s *service) Hold(ctx context.Context, r control.HoldRequest) (control.Result, error) {
	a, err := s.supervisor.Hold(ctx, r.By, r.Max.D())
	return s.serviceResult(ctx, a, err)
}

func (s *service) Resume(ctx context.Context, r control.ResumeRequest) (control.Result, error) {
	a, err := s.supervisor.Resume(ctx, r.By)
	return s.serviceResult(ctx, a, err)
}

func (s *service) Reload(ctx context.Context, r control.ReloadRequest) (control.Result, error) {
	if err := s.reload(ctx, r.By); err != nil {
		return control.Result{}, asControl(err)
	}
	return control.Result{Message: "the config is applied"}, nil
}

// switchResult is result with the time from the request to the switch; the
// answer comes later, when the new state is on disk.
func (s *service) switchResult(ctx context.Context, asked time.Time, a backend.Answered, err error) (control.Result, error) {
	r, err := s.result(ctx, a, err)
	if err == nil && r.Switched {
		r.SwitchMicros = a.SwitchedAt.Sub(asked).Microseconds()
	}
	return r, err
}

// serviceResult is result for what concerns the service as a whole.
func (s *service) serviceResult(ctx context.Context, a backend.Answered, err error) (control.Result, error) {
	r, err := s.result(ctx, a, err)
	if err != nil {
		return r, err
	}
	if st, err := s.supervisor.Status(ctx); err == nil {
		r.State = string(st.State)
	}
	return r, nil
}

// result gives an answer of the supervisor, with what drains just now.
func (s *service) result(ctx context.Context, a backend.Answered, err error) (control.Result, error) {
	if err != nil {
		return control.Result{}, asControl(err)
	}
	if a.Verdict != backend.Done {
		return control.Result{}, &control.Error{
			Code: control.Code(a.Verdict), Message: failure(a), Hint: a.Hint, Output: a.LastLines,
		}
	}
	r := control.Result{
		Generation: a.Gen, Release: a.Release, Previous: a.Outcome.Previous,
		Switched: a.Switched, Started: a.Started, Message: a.Reason,
	}
	s.direct.counting.unlessResting() // a switch is answered at once
	st, err := s.supervisor.Status(ctx)
	if err != nil {
		return r, nil // it was done all the same
	}
	for _, g := range st.Generations {
		if g.ID == a.Gen {
			r.State = string(g.State)
		}
		if g.State == backend.Draining {
			r.Draining = append(r.Draining, control.Draining{
				ID: g.ID, Release: g.Release, InFlight: g.Counts.InFlight, DrainDeadline: timeOrNil(g.DrainDeadline),
			})
		}
	}
	return r, nil
}

// failure says what became of a request, and of which generation.
func failure(a backend.Answered) string {
	if a.Verdict != backend.NotReady {
		return a.Reason
	}
	return "generation " + generationName(a.Gen, a.Release) + " was not ready, nothing changed: " + a.Reason
}

// asControl gives the supervisor's own errors their codes.
func asControl(err error) error {
	if errors.Is(err, backend.ErrEnded) {
		return &control.Error{Code: control.NotRunning, Message: err.Error()}
	}
	return err
}
