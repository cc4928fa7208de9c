package control

import (
	"context"
	"fmt"
)

func (s *Server) status(ctx context.Context, a ask) (any, error) {
	if err := a.onlyQuery(); err != nil {
		return nil, err
	}
	st, err := s.cfg.Service.Status(ctx)
	st.Schema = Schema
	if st.Listeners == nil {
		st.Listeners = []Listener{}
	}
	if st.Generations == nil {
		st.Generations = []Generation{}
	}
	return st, err
}

// historyDocument is the answer to /v1/history.
type historyDocument struct {
	Schema  int            `json:"schema"`
	Entries []HistoryEntry `json:"entries"`
}

func (s *Server) history(ctx context.Context, a ask) (any, error) {
	if err := a.onlyQuery("limit"); err != nil {
		return nil, err
	}
	limit, err := a.number("limit")
	if err != nil {
		return nil, err
	}
	entries, err := s.cfg.Service.History(ctx, int(limit))
	if entries == nil {
		entries = []HistoryEntry{}
	}
	return historyDocument{Schema: Schema, Entries: entries}, err
}

func (s *Server) version(ctx context.Context, a ask) (any, error) {
	if err := a.onlyQuery(); err != nil {
		return nil, err
	}
	return s.cfg.Service.Version(ctx)
}

// form reads the JSON of a request that changes something; such a request has no
// query.
func (a ask) form(into any) error {
	if err := a.onlyQuery(); err != nil {
		return err
	}
	if err := decode(a.body, into); err != nil {
		return &Error{Code: Usage, Message: "request: " + err.Error()}
	}
	return nil
}

func (s *Server) stage(ctx context.Context, a ask) (Result, error) {
	r := StageRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	if err := checkAnyRelease(r.Release); err != nil {
		return Result{}, err
	}
	return s.cfg.Service.Stage(ctx, r)
}

func (s *Server) promote(ctx context.Context, a ask) (Result, error) {
	r := PromoteRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	if err := checkAnyRelease(r.Release); err != nil {
		return Result{}, err
	}
	if r.Release != "" && r.Generation != 0 {
		return Result{}, &Error{Code: Usage, Message: "request: release and generation exclude each other"}
	}
	return s.cfg.Service.Promote(ctx, r)
}

func (s *Server) revert(ctx context.Context, a ask) (Result, error) {
	r := RevertRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	return s.cfg.Service.Revert(ctx, r)
}

func (s *Server) retire(ctx context.Context, a ask) (Result, error) {
	r := RetireRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	return s.cfg.Service.Retire(ctx, r)
}

func (s *Server) stop(ctx context.Context, a ask) (Result, error) {
	r := StopRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	if r.Generation == 0 {
		return Result{}, &Error{Code: Usage, Message: "request: generation is missing"}
	}
	switch r.Mode {
	case StopGraceful, StopNow, StopKill:
		return s.cfg.Service.Stop(ctx, r)
	default:
		return Result{}, &Error{Code: Usage,
			Message: fmt.Sprintf("request: mode: %q is none of \"\", %q, %q", r.Mode, StopNow, StopKill)}
	}
}

func (s *Server) hold(ctx context.Context, a ask) (Result, error) {
	r := HoldRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	if r.Max < 0 {
		return Result{}, &Error{Code: Usage, Message: fmt.Sprintf("request: max: %s is below zero", r.Max.D())}
	}
	return s.cfg.Service.Hold(ctx, r)
}

func (s *Server) resume(ctx context.Context, a ask) (Result, error) {
	r := ResumeRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	return s.cfg.Service.Resume(ctx, r)
}

func (s *Server) reload(ctx context.Context, a ask) (Result, error) {
	r := ReloadRequest{By: a.by}
	if err := a.form(&r); err != nil {
		return Result{}, err
	}
	return s.cfg.Service.Reload(ctx, r)
}

// checkAnyRelease passes an empty label, which stands for the current release.
func checkAnyRelease(label string) error {
	if label == "" {
		return nil
	}
	if err := CheckRelease(label); err != nil {
		return &Error{Code: Usage, Message: "request: release: " + err.Error()}
	}
	return nil
}
