package control

import "context"

// Service is what a Server speaks for; cmd/proxyd has the real one. Its methods
// are called from many goroutines at once. Errors are *Error, or anything, which
// then counts as Failed.
//
// The context of Status, History, Events and Version ends when the client goes
// away. That of the other methods does not: what was begun is finished, whether
// or not someone waits for the answer.
type Service interface {
	Status(ctx context.Context) (Status, error)
	// History gives the last limit entries, oldest first; 0 gives all.
	History(ctx context.Context, limit int) ([]HistoryEntry, error)
	// Events gives the entries numbered above after, and then new ones as they
	// come. The channel is closed when ctx ends, and may be closed before.
	Events(ctx context.Context, after uint64) (<-chan HistoryEntry, error)
	Version(ctx context.Context) (VersionInfo, error)

	Stage(ctx context.Context, r StageRequest) (Result, error)
	Promote(ctx context.Context, r PromoteRequest) (Result, error)
	Revert(ctx context.Context, r RevertRequest) (Result, error)
	Retire(ctx context.Context, r RetireRequest) (Result, error)
	Stop(ctx context.Context, r StopRequest) (Result, error)
	Hold(ctx context.Context, r HoldRequest) (Result, error)
	Resume(ctx context.Context, r ResumeRequest) (Result, error)
	// Reload reads the config again and applies it as a whole, or changes nothing.
	Reload(ctx context.Context, r ReloadRequest) (Result, error)
}
