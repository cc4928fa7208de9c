package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
)

// Config is what proxyd is told by its file and its flags. The toml tags are
// the keys of the file; defaults stands for what is left out.
type Config struct {
	Name      string           // of the service: --name, else the file's name
	Listeners []ListenerConfig `toml:"listener"` // only used where systemd passes none
	Backend   BackendConfig    `toml:"backend"`
	Ready     ReadyConfig      `toml:"ready"`
	Promote   PromoteConfig    `toml:"promote"`
	Drain     DrainConfig      `toml:"drain"`
	Stop      StopConfig       `toml:"stop"`
	Limits    LimitsConfig     `toml:"limits"`

	rules    []ListenerConfig // what was said of the PROXY protocol, by name
	places   places
	problems ConfigErrors // found while reading, before Validate
}

// ListenerConfig is one client-facing socket that proxyd opens itself, or what
// else is to be known of one that systemd passes.
type ListenerConfig struct {
	Name    string `toml:"name"`
	Address string `toml:"address"` // as activation.ParseAddress takes it

	// ProxyProtocol is the version of the PROXY protocol, "v1" or "v2", in which
	// generations are told the client's address; AcceptProxy are the clients
	// that begin with such a header themselves: networks, addresses, "unix:".
	// Both hold for all listeners of the name, also for systemd's.
	ProxyProtocol string   `toml:"proxy_protocol"`
	AcceptProxy   []string `toml:"accept_proxy"`

	key string // where it stands in the file: "listener[0]"
}

// BackendConfig says what a generation runs and how it gets its connections.
type BackendConfig struct {
	Driver  string            `toml:"driver"`  // "exec" or "systemd"
	Command []string          `toml:"command"` // driver exec; with placeholders
	Unit    string            `toml:"unit"`    // driver systemd; with {release}, {generation} or {fixed}
	Scope   string            `toml:"scope"`   // driver systemd: "auto", "system" or "user", whose units they are
	Fixed   []FixedConfig     `toml:"fixed"`   // driver systemd; addresses of units that know nothing of proxyd
	Sockets string            `toml:"sockets"` // "activation" or "address"
	Family  string            `toml:"family"`  // of a generation's own sockets: "unix" or "tcp"
	Path    string            `toml:"path"`    // "auto", "relay" or "direct"
	Release string            `toml:"release"` // the first generation's, where no state exists
	Dir     string            `toml:"dir"`     // working directory; empty: proxyd's own
	Env     map[string]string `toml:"env"`     // added to proxyd's own; with placeholders

	// NonBlocking sets O_NONBLOCK on the sockets that a generation is handed, as
	// systemd's NonBlocking= does. A program whose processes share a socket and
	// wait for it by epoll may need it: of two that wake for one connection, the
	// second would stay in accept(2), with all that it serves.
	NonBlocking bool `toml:"non_blocking"`
}

// ReadyConfig says when a generation counts as ready.
type ReadyConfig struct {
	Check     string   `toml:"check"`   // "auto", "notify", "connect", "http" or "command"
	Path      string   `toml:"path"`    // check http
	Command   []string `toml:"command"` // check command; with placeholders
	Interval  Duration `toml:"interval"`
	Timeout   Duration `toml:"timeout"`
	Successes int      `toml:"successes"`
	Deadline  Duration `toml:"deadline"`
}

// PromoteConfig says how long a new generation is watched.
type PromoteConfig struct {
	Probation Duration `toml:"probation"`
}

// DrainConfig says how older generations end.
type DrainConfig struct {
	Deadline     Duration `toml:"deadline"`
	KeepPrevious Duration `toml:"keep_previous"`
	MaxDraining  int      `toml:"max_draining"` // 0: no bound
}

// StopConfig says how a process is asked to end.
type StopConfig struct {
	Signal  string   `toml:"signal"`
	Timeout Duration `toml:"timeout"` // then KILL
}

// signal gives the number of a name that Validate passed.
func (s StopConfig) signal() syscall.Signal { return unix.SignalNum(s.Signal) }

// LimitsConfig bounds the data path.
type LimitsConfig struct {
	MaxConnections   int      `toml:"max_connections"` // 0: as many as descriptors allow
	ConnectTimeout   Duration `toml:"connect_timeout"`
	IdleTimeout      Duration `toml:"idle_timeout"`       // 0: none
	HalfCloseTimeout Duration `toml:"half_close_timeout"` // 0: none
}

// Duration is written as a string such as "1m30s".
type Duration time.Duration

// D gives d as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// defaults gives what holds where nothing else is said.
func defaults() *Config {
	return &Config{
		Name:    activation.DefaultName,
		Backend: BackendConfig{Driver: "exec", Scope: "auto", Sockets: "activation", Family: "unix", Path: "auto", Release: "v1"},
		Ready: ReadyConfig{
			Check: "auto", Path: "/healthz", Interval: Duration(time.Second), Timeout: Duration(5 * time.Second),
			Successes: 1, Deadline: Duration(30 * time.Second),
		},
		Promote: PromoteConfig{Probation: Duration(30 * time.Second)},
		Drain: DrainConfig{
			Deadline: Duration(10 * time.Minute), KeepPrevious: Duration(10 * time.Minute), MaxDraining: 8,
		},
		Stop:   StopConfig{Signal: "SIGTERM", Timeout: Duration(30 * time.Second)},
		Limits: LimitsConfig{ConnectTimeout: Duration(5 * time.Second)},
	}
}

// Flags are the command line's part of the configuration; what is empty was not
// given. They win over the file.
type Flags struct {
	Name    string   // --name
	Listen  []string // --listen, in place of the file's listeners
	Release string   // --release
	Command []string // after --
}

// Configure gives the configuration of the file at path, if path is not empty,
// with flags over it, once it holds to every rule. The error is ConfigErrors
// with all that is wrong, or says that the file cannot be read.
func Configure(path string, flags Flags) (*Config, error) {
	c := defaults()
	if path != "" {
		var err error
		if c, err = readConfig(path); err != nil {
			return nil, err
		}
	}
	c.Apply(flags)
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// LoadConfig is Configure without flags.
func LoadConfig(path string) (*Config, error) { return Configure(path, Flags{}) }

// Apply lays flags over c. Errors of Validate then name the flag.
func (c *Config) Apply(flags Flags) {
	if flags.Name != "" {
		c.Name = flags.Name
		c.places.flag("name", "--name")
	}
	if len(flags.Listen) > 0 {
		c.Listeners, c.rules = nil, nil
		for _, address := range flags.Listen {
			c.Listeners = append(c.Listeners, ListenerConfig{Name: activation.DefaultName, Address: address})
		}
		c.places.flag("listener", "--listen")
	}
	if flags.Release != "" {
		c.Backend.Release = flags.Release
		c.places.flag("backend.release", "--release")
	}
	if len(flags.Command) > 0 {
		c.Backend.Command = flags.Command
		c.places.flag("backend.command", "COMMAND")
	}
}

// nameOfFile gives the service's name for a file without --name: web for
// /etc/proxyd/web.toml.
func nameOfFile(path string) string {
	return strings.TrimSuffix(filepath.Base(path), ".toml")
}
