package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
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
		raw = append(raw, c)
		return c, nil
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to systemd at %s: %w", address, err)
	}
	b := &systemdBus{conn: conn, cancel: cancel, names: make(chan string, 64), lost: make(chan struct{})}
	updates, overflow := make(chan *sd.PropertiesUpdate, 256), make(chan error, 16)
	conn.SetPropertiesSubscriber(updates, overflow)
	b.pumped.Add(1)
	go b.pump(raw, updates, overflow)
	if err := conn.Subscribe(); err != nil {
		b.close()
		return nil, fmt.Errorf("subscribe to systemd's signals at %s: %w", address, err)
	}
	return b, nil
}

// pump hands on which units changed. It ends when either connection is closed,
// and close waits for it.
func (b *systemdBus) pump(raw []*dbus.Conn, updates <-chan *sd.PropertiesUpdate, overflow <-chan error) {
	defer b.pumped.Done()
	defer close(b.names)
	defer b.cancel() // one without the other is of no use
	defer close(b.lost)
	for {
		var name string
		select {
		case u := <-updates:
			name = u.UnitName
		case <-overflow:
		case <-raw[0].Context().Done():
			return
		case <-raw[1].Context().Done():
			return
		}
		select {
		case b.names <- name:
		case <-raw[0].Context().Done():
			return
		case <-raw[1].Context().Done():
			return
		}
	}
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
