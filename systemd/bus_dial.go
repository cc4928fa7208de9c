package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// dialLimit is for one try to connect, with the greeting.
const dialLimit = 10 * time.Second

// systemdBus is a bus over go-systemd, which makes two connections: one for
// calls, one for signals.
type systemdBus struct {
	conn   *sd.Conn
	system dbus.BusObject     // systemd's manager, for what conn has no method for
	cancel context.CancelFunc // closes both connections
	names  chan string
	lost   chan struct{} // closed when either connection is
	pumped sync.WaitGroup
}

// dial connects: root to systemd itself, with no bus daemon between; others to
// the system bus; with user to the user's own manager. The connection ends with
// ctx.
func dial(ctx context.Context, user bool) (bus, error) {
	if user {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return nil, errors.New("connect to the user's systemd: XDG_RUNTIME_DIR is not set")
		}
		return open(ctx, "unix:path="+dir+"/systemd/private", false)
	}
	if os.Geteuid() == 0 {
		b, err := open(ctx, "unix:path=/run/systemd/private", false)
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		if viaBus, busErr := open(ctx, systemBusAddress(), true); busErr == nil {
			return viaBus, nil
		}
		return nil, err
	}
	return open(ctx, systemBusAddress(), true)
}

// systemBusAddress is where D-Bus's specification says that the system bus is.
func systemBusAddress() string {
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		return a
	}
	return "unix:path=/run/dbus/system_bus_socket"
}

// open connects to address; hello says whether a bus daemon is there, which
// wants to be greeted.
func open(parent context.Context, address string, hello bool) (bus, error) {
	ctx, cancel := context.WithCancel(parent)
	limit := time.AfterFunc(dialLimit, cancel)
	defer limit.Stop()
	var raw []*dbus.Conn
	var signals chan *dbus.Signal
	conn, err := sd.NewConnection(func() (*dbus.Conn, error) {
		c, err := dbus.Dial(address, dbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		// The number, as a user's name may need a look-up that asks systemd.
		if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
			_ = c.Close()
			return nil, err
		}
		if hello {
			if err := c.Hello(); err != nil {
				_ = c.Close()
				return nil, err
			}
		}
		// Of the first connection no signals come. go-systemd would hand on those
		// of the second as well, but it looks for who wants them while that is set.
		signals = make(chan *dbus.Signal, 256)
		c.Signal(signals)
		raw = append(raw, c)
		return c, nil
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to systemd at %s: %w", address, err)
	}
	system := raw[0].Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	b := &systemdBus{conn: conn, system: system, cancel: cancel, names: make(chan string), lost: make(chan struct{})}
	b.pumped.Add(1)
	go b.pump(raw, signals)
	if err := conn.Subscribe(); err != nil {
		b.close()
		return nil, fmt.Errorf("subscribe to systemd's signals at %s: %w", address, err)
	}
	return b, nil
}

// pump hands on which units changed. It always takes what comes, so that nothing
// piles up before it: of several names that nobody has taken yet "" is left. It
// ends when either connection is closed, and close waits for it.
func (b *systemdBus) pump(raw []*dbus.Conn, signals <-chan *dbus.Signal) {
	defer b.pumped.Done()
	defer close(b.names)
	defer b.cancel() // one without the other is of no use
	defer close(b.lost)
	var name string
	var names chan<- string // nil while there is no name to hand on
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return
			}
			unit, ok := changedUnit(s)
			switch {
			case !ok:
			case names == nil:
				name, names = unit, b.names
			case name != unit:
				name = ""
			}
		case names <- name:
			names = nil
		case <-raw[0].Context().Done():
			return
		case <-raw[1].Context().Done():
			return
		}
	}
}

// changedUnit reads which unit's properties have changed from the signal that
// says so; ok is false for every other signal. See org.freedesktop.systemd1(5).
func changedUnit(s *dbus.Signal) (name string, ok bool) {
	if s.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" || len(s.Body) == 0 || s.Body[0] != "org.freedesktop.systemd1.Unit" {
		return "", false
	}
	name, ok = strings.CutPrefix(string(s.Path), "/org/freedesktop/systemd1/unit/")
	if !ok {
		return "", false
	}
	return busUnescape(name), true
}

// busUnescape reads a unit's name from the last part of its object path, where
// all but letters and digits is written _xx.
func busUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '_' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (b *systemdBus) changed() <-chan string { return b.names }

func (b *systemdBus) close() {
	b.conn.Close()
	b.cancel()
	b.pumped.Wait()
}

func (b *systemdBus) start(ctx context.Context, unit string) (<-chan string, error) {
	// Buffered: go-systemd sends the result while it holds the lock of all jobs.
	result := make(chan string, 1)
	_, err := b.conn.StartUnitContext(ctx, unit, "replace", result)
	return result, b.explain(ctx, err)
}

func (b *systemdBus) stop(ctx context.Context, unit string) (<-chan string, error) {
	result := make(chan string, 1)
	_, err := b.conn.StopUnitContext(ctx, unit, "replace", result)
	return result, b.explain(ctx, err)
}

func (b *systemdBus) kill(ctx context.Context, unit, who string, signal int32) error {
	return b.explain(ctx, b.conn.KillUnitWithTarget(ctx, unit, sd.Who(who), signal))
}

func (b *systemdBus) resetFailed(ctx context.Context, unit string) error {
	return b.explain(ctx, b.conn.ResetFailedUnitContext(ctx, unit))
}

func (b *systemdBus) properties(ctx context.Context, unit string) (map[string]any, error) {
	p, err := b.conn.GetAllPropertiesContext(ctx, unit)
	return p, b.explain(ctx, err)
}

func (b *systemdBus) processes(ctx context.Context, unit string) ([]int, error) {
	var list []struct {
		Group   string
		PID     uint32
		Command string
	}
	err := b.system.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.GetUnitProcesses", 0, unit).Store(&list)
	pids := make([]int, 0, len(list))
	for _, p := range list {
		pids = append(pids, int(p.PID))
	}
	return pids, b.explain(ctx, err)
}

func (b *systemdBus) list(ctx context.Context, pattern string) ([]string, error) {
	units, err := b.conn.ListUnitsByPatternsContext(ctx, nil, []string{pattern})
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.Name)
	}
	return names, b.explain(ctx, err)
}

func (b *systemdBus) systemState(ctx context.Context) (string, error) {
	p, err := b.conn.SystemStateContext(ctx)
	if err != nil {
		return "", b.explain(ctx, err)
	}
	state, _ := p.Value.Value().(string)
	return state, nil
}

// explain sorts an error of a call into what this package knows.
func (b *systemdBus) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-b.lost:
		return errLost
	default:
	}
	var said dbus.Error
	if !errors.As(err, &said) {
		// No answer of systemd's but of the connection, which is about to be
		// known as lost.
		return fmt.Errorf("%w: %w", errLost, err)
	}
	switch said.Name {
	case "org.freedesktop.DBus.Error.AccessDenied",
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
		"org.freedesktop.DBus.Error.AuthFailed":
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case "org.freedesktop.systemd1.NoSuchUnit":
		return fmt.Errorf("%w: %w", errNoUnit, err)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
		"org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.systemd1.ShuttingDown":
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return err
}
