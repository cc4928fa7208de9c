package proxy

import (
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Listener is a listening socket to take clients from.
type Listener struct {
	Name string // several listeners may have the same name
	FD   int    // borrowed: never closed here; tcp or unix, SOCK_STREAM

	// ProxyProtocol is the version of the PROXY protocol, 1 or 2, in which the
	// generation is told each client's address before its bytes. 0: it is not.
	ProxyProtocol int
	// AcceptProxy lists the clients, by their own address, that stand for
	// others and must begin with a header of either version; it is taken out of
	// their stream. AcceptProxyUnix makes every client of a unix listener one.
	// From any other client such bytes are bytes like all others.
	AcceptProxy     []netip.Prefix
	AcceptProxyUnix bool

	// Member says that the socket is a member of a group that is steered and may
	// be given to a generation. No option is set on it, and nothing is accepted
	// from it before Serve says so.
	Member bool
}

// Config says what a Proxy serves and within which limits.
type Config struct {
	Listeners []Listener // at least one, at most 64

	// Loops is the number of event loops, each with its own thread. 0: one
	// per CPU.
	Loops int
	// MaxConnections is how many clients are served at a time; the others
	// wait in the listener's queue. 0: as many as descriptors allow. A greater
	// number than descriptors allow is lowered.
	MaxConnections int
	// Reserve is how many descriptors are left for everything else. 0: 64.
	Reserve int

	// ConnectTimeout is how long a generation that cannot be connected to is
	// tried again before the client is reset. 0: 5 s.
	ConnectTimeout time.Duration
	// HeaderTimeout is how long a client of AcceptProxy has for its header,
	// after which it is reset. 0: 5 s.
	HeaderTimeout time.Duration
	// IdleTimeout resets a connection without activity in either direction;
	// HalfCloseTimeout one where one side has ended and the other shows no
	// activity. 0: never.
	IdleTimeout, HalfCloseTimeout time.Duration
	// KeepAlive is the quiet time after which TCP asks whether a peer still
	// lives; a dead one is given up after about twice that. 0: 60 s,
	// negative: off.
	KeepAlive time.Duration
	// UserTimeout is TCP_USER_TIMEOUT, see tcp(7): how long sent bytes may
	// stay unacknowledged. It also ends a client that lives but does not read
	// for so long, therefore 0 means IdleTimeout, and without that the
	// kernel's own limit.
	UserTimeout time.Duration

	Log hclog.Logger // nil: no log
}
