package backend

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"syscall"
)

// ErrGone is what Driver.Adopt gives for a process that is no more.
var ErrGone = errors.New("its process is gone")

// StartError is a start that came to nothing, with the last lines that there are
// of it, clean of control bytes. A Driver may give one.
type StartError struct {
	Err   error
	Lines []string
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// Launch says what a Driver is to start.
type Launch struct {
	ID      uint64
	Release string
	Plan    json.RawMessage // what Driver.Plan fixed for this generation
	Moves   bool            // it is started for a Wisher: an error where it could be served no better
	// Staged: somebody asked for this new generation, and nothing depends on it. An
	// error where it cannot be served as the config insists.
	Staged bool
}

// Found is a generation that a Driver sees running, for when the state is lost.
type Found struct {
	ID       uint64
	Release  string
	Identity json.RawMessage
}

// Driver starts, watches and ends the processes of generations. Its methods may
// be called from several goroutines, for different generations at once.
type Driver interface {
	// Plan fixes what the generation runs. It is kept with the generation, so
	// that a revert runs what ran.
	Plan(id uint64, release string) (json.RawMessage, error)
	// Start starts l. It calls record with what identifies the process before
	// the program runs in it, again when more is known, and ends it if record
	// fails. When ctx ends it gives up and leaves nothing.
	Start(ctx context.Context, l Launch, record func(identity json.RawMessage) error) (Run, error)
	// Adopt takes over a process that outlived proxyd, or gives ErrGone.
	Adopt(ctx context.Context, l Launch, identity json.RawMessage) (Run, error)
	// Found lists the generations whose processes run.
	Found(ctx context.Context) ([]Found, error)
	// Sweep ends every process of this service that belongs to none of keep.
	Sweep(ctx context.Context, keep []uint64) error
	// Release gives up what was kept for a generation between its runs.
	Release(id uint64)
}

// Run is one process of a generation, with all that it forked.
type Run interface {
	PID() int
	Unit() string
	// Addresses tells where each listener's connections go.
	Addresses() map[string]net.Addr
	// Done is closed when the main process has ended and Exit tells how.
	Done() <-chan struct{}
	Exit() string
	// Clear ends what the main process left behind, and returns when nothing of it
	// runs any more. Called after Done. With hurry clients wait for that.
	// When ctx ends, proxyd does, and what outlives it may be left.
	Clear(ctx context.Context, hurry bool)
	Signal(syscall.Signal) error
	Kill() error
	// LastLines are the last lines that it wrote, clean of control bytes. It may
	// take a while, and is good after Clear as well.
	LastLines() []string
	// Tells says that it will say itself when it is ready, as far as that is known
	// from the start.
	Tells() bool
	// Notices gives what it says of itself; nil where it cannot.
	Notices() <-chan Notice
	// Waiting is how many connections wait in the queue that proxyd holds open
	// for a listener; ok is false where proxyd holds none.
	Waiting(listener string) (n int, ok bool)
	// Command runs a readiness command with the generation's environment. The
	// error tells why it did not exit with 0.
	Command(ctx context.Context, argv []string) error
}

// Misfitter is a Run that is handed its sockets before it is known what it does with
// them.
type Misfitter interface {
	// Misfit is asked once the run is proven ready. It says why it should have other
	// sockets, which it is given when it is started again; empty: these are right.
	Misfit() (why string)
}

// Lingerer is a Run of which more than the main process may have to end.
type Lingerer interface {
	// Left says what Clear waits for; empty: nothing that is known.
	Left() string
}

// Reacher is a Run whose addresses are shared with other generations, so that
// the readiness checks must be given their connections.
type Reacher interface {
	// Reach connects to a listener of this very generation. ok is false where a
	// connect to its address does that.
	Reach(ctx context.Context, listener string) (conn net.Conn, ok bool, err error)
}

// Strander is a Run that Driver.Adopt may give: it outlived proxyd, and it may be
// that no connection can be given to it any more, though it still has some.
type Strander interface {
	// Stranded says why that is; empty: it is not. beside says that the release can
	// be run once more while this one runs. The Router is not told of its
	// addresses; what it has in flight is the Router's to know all the same.
	Stranded() (why string, beside bool)
}

// Starter is a Run whose start goes on beside its process and may yet fail, as
// that of a unit with ExecStartPost=.
type Starter interface {
	// Started is closed once the start has come to its end, and that was a good one.
	Started() <-chan struct{}
}

// Notice is what a generation says of itself (sd_notify).
type Notice struct {
	Ready    bool
	Stopping bool
	Status   string
}

// Router is the data path, by the numbers of generations.
type Router interface {
	// Open makes a generation known, with where its connections go.
	Open(id uint64, addresses map[string]net.Addr) error
	// Switch sends new connections to id, or with 0 lets them wait. When it
	// returns, every event loop has seen it.
	Switch(id uint64)
	// Drained gives a channel that is closed once the generation gets no new
	// connections and none is in flight.
	Drained(id uint64) <-chan struct{}
	// Cut resets what is in flight.
	Cut(id uint64)
	// Close forgets the generation; its counts are of no interest any more.
	Close(id uint64)
	// Seal takes no new clients any more, for proxyd ends. Those that were taken
	// go on, to where they were to go.
	Seal()
	// Leave is Seal where generations outlive proxyd: what gets to them without it
	// goes on doing so.
	Leave()
	Hold()
	Resume()
	// Empty gives a channel that is closed once, after a Seal or Leave, no connection is
	// left that would end with proxyd.
	Empty() <-chan struct{}
	Counts(id uint64) Counts
}

// Wisher is a Router that may serve a release better by a generation that is
// started now than by the one that runs. It is asked after everything that the
// Supervisor does or is told.
type Wisher interface {
	// Wish gives the generation that this holds for, of those that new connections
	// may go to, and what would become of it; 0 where it holds for none.
	Wish() (id uint64, why string)
}

// Counts are a generation's connections and bytes since proxyd was started.
type Counts struct {
	InFlight, Accepted, ConnectFailures uint64
	BytesFromClients, BytesToClients    uint64
}
