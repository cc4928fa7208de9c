package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/control"
	"github.com/seed8fae2174/proxyd/backend/process"
	"github.com/seed8fae2174/proxyd/proxy"
)

// daemon is everything that one proxyd runs, in the order it is made; close
// goes through it backwards.
type daemon struct {
	config     *Config                // as it was at the start
	live       atomic.Pointer[Config] // as the last reload left it
	reloading  reloading
	ready      atomic.Bool // systemd was told READY=1
	name       string
	runtimeDir string
	stateDir   string
	log        hclog.Logger
	output     io.Writer // what generations write
	outlets    []*outlet // of both

	locks      []*os.File
	listeners  []activation.Listener
	holder     *groupHolder
	stored     []activation.Listener // given to the generations' sockets
	processes  *process.Driver
	driver     backend.Driver
	units      *systemdDriver // is driver where generations are units
	proxy      *proxy.Proxy
	direct     *directPath
	supervisor *backend.Supervisor
	server     *control.Server
	controls   int            // connections of the control socket
	background sync.WaitGroup // what serve waits for
	ending     chan struct{}  // closed at the first stop signal
}

// stopGrace is how long clients of the control socket get at the end.
const stopGrace = 2 * time.Second

// serve makes everything, serves until a stop signal, and gives everything back.
func (d *daemon) serve(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	d.ending = make(chan struct{})
	hangup := hangups()
	if err := d.open(ctx); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go d.hurry(ctx)
	beside, end := context.WithCancel(context.Background())
	d.background.Add(2)
	go d.tellSystemd(beside, ctx.Done())
	go d.reloadAtHangup(beside, hangup)
	err = d.supervisor.Run(ctx)
	end()
	d.background.Wait()
	return err
}

// sameWish is how close two stop signals mean one wish: some senders signal the
// process and then its group.
const sameWish = time.Second

// hurry ends every process at the second stop signal. It ends with proxyd.
func (d *daemon) hurry(ctx context.Context) {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	<-ctx.Done()
	close(d.ending)
	d.tell("STOPPING=1")
	first := time.Now()
	for range again {
		if time.Since(first) > sameWish {
			d.log.Warn("asked to end once more: ending every process now")
			d.supervisor.Hurry()
		}
	}
}

func (d *daemon) open(ctx context.Context) error {
	if err := socketPathsFit(d.runtimeDir, d.config.listenerNames()); err != nil {
		return err
	}
	if err := d.openDirs(); err != nil {
		return err
	}
	if err := d.openListeners(); err != nil {
		return err
	}
	if err := socketPathsFit(d.runtimeDir, listenerNames(d.listeners)); err != nil {
		return err // systemd's may have longer names
	}
	store, durable, known, notes, err := backend.OpenStore(d.stateDir, d.runtimeDir)
	for _, n := range notes {
		d.log.Warn("passed over a copy of the state", "copy", n)
	}
	if err != nil {
		return err
	}
	if err := checkTakeOver(ctx, d.config, durable, false); err != nil {
		return err
	}
	socket := filepath.Join(d.runtimeDir, "control.sock")
	if err := d.openDriver(ctx, socket); err != nil {
		return err
	}
	if err := d.openProxy(); err != nil {
		return err
	}
	if err := d.openDirect(); err != nil {
		return err
	}
	d.supervisor, err = backend.New(backend.Config{
		Service:    d.name,
		Release:    d.config.Backend.Release,
		Policy:     policyOf(d.config),
		Readiness:  readinessOf(d.config),
		StopSignal: d.config.Stop.signal(),
		Driver:     d.driver,
		Router:     newRouter(d.proxy, d.direct),
		Store:      store,
		Durable:    durable,
		Known:      known,
		History:    backend.OpenHistory(d.stateDir),
		Log:        d.log.Named("backend"),
		Leave:      d.units != nil,
		Fault:      faultAt,
	})
	if err != nil {
		return err
	}
	return d.openControl(socket)
}

// openListeners also has them held, where they are proxyd's own.
func (d *daemon) openListeners() (err error) {
	found, held := activation.FindHolder(holderPath(d.runtimeDir))
	d.listeners, d.stored, err = openListeners(d.config, held, d.log, d.runtimeDir, d.stateDir)
	if err == nil {
		d.holder = keepGroups(d.runtimeDir, found, held, d.listeners, d.log.Named("holder"))
	} else if found != nil {
		err = errors.Join(err, found.Close()) // left to itself
	}
	for _, fd := range held {
		unix.Close(fd)
	}
	return err
}

func (d *daemon) openDirs() error {
	for _, dir := range []string{d.runtimeDir, d.stateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	var err error
	d.locks, err = lockDirs(d.runtimeDir, d.stateDir)
	return err
}

func (d *daemon) openDriver(ctx context.Context, socket string) error {
	var err error
	d.processes, err = process.New(process.Config{
		Service: d.name, Marker: socket, Log: d.log.Named("process"), Output: d.output,
		OutputOf: outputOf(d.runtimeDir),
	})
	if err != nil {
		return err
	}
	log := d.log.Named("driver")
	sockets := newGenerationSockets(d.runtimeDir, listenerNames(d.listeners), d.stored, log)
	d.direct = newDirectPath(d.log.Named("direct"))
	sockets.direct = d.direct
	d.direct.switched, d.direct.flush = sockets.noteFlags, sockets.flags.flush
	if d.config.Backend.Driver == "systemd" {
		if d.units, err = newSystemdDriver(ctx, &d.live, d.processes, sockets, log); err != nil {
			return err
		}
		d.driver = d.units
		return nil
	}
	d.driver = &execDriver{
		processes: d.processes, config: &d.live, service: d.name, control: socket, sockets: sockets,
		holder: d.holder, ending: d.ending, log: log,
	}
	return nil
}

func (d *daemon) openProxy() error {
	var listeners []proxy.Listener
	places := map[string]bool{} // the first socket of each is the relay's
	for i, l := range d.listeners {
		place := l.Name + " " + l.Addr.String()
		version, trusted, trustUnix := d.config.Listeners[i].forProxy()
		listeners = append(listeners, proxy.Listener{
			Name: l.Name, FD: l.FD, ProxyProtocol: version, AcceptProxy: trusted, AcceptProxyUnix: trustUnix,
			Member: places[place],
		})
		places[place] = true
	}
	var err error
	var reserve int
	d.controls, reserve = divideDescriptors(descriptorLimit(), len(d.listeners), d.config.Drain.MaxDraining)
	d.proxy, err = proxy.New(proxy.Config{
		Listeners:        listeners,
		Reserve:          reserve,
		MaxConnections:   d.config.Limits.MaxConnections,
		ConnectTimeout:   d.config.Limits.ConnectTimeout.D(),
		IdleTimeout:      d.config.Limits.IdleTimeout.D(),
		HalfCloseTimeout: d.config.Limits.HalfCloseTimeout.D(),
		Log:              d.log.Named("proxy"),
	})
	if err != nil {
		return err
	}
	for _, l := range d.listeners {
		for _, client := range l.Clients {
			d.proxy.TakeOver(client, l.FD)
		}
	}
	return nil
}

func (d *daemon) openControl(socket string) error {
	l, err := control.Listen(socket)
	if err != nil {
		return err
	}
	c := control.Config{
		Service: &service{supervisor: d.supervisor, listeners: d.listeners, direct: d.direct, reload: d.reload},
		Log:     d.log.Named("control"),

		MaxConnections: d.controls,
	}
	if d.units != nil {
		c.Handover = d.units.handover
	}
	d.server = control.NewServer(c)
	go d.serveControl(l)
	return nil
}

// serveControl ends with Shutdown of the server.
func (d *daemon) serveControl(l net.Listener) {
	if err := d.server.Serve(l); err != nil {
		d.log.Error("the control socket is served no more", "error", err)
	}
}

// close gives back, in the reverse order, whatever open made.
func (d *daemon) close() error {
	var errs []error
	if d.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		errs = append(errs, d.server.Shutdown(ctx))
	}
	if d.direct != nil {
		d.direct.close()
	}
	if d.proxy != nil {
		errs = append(errs, d.proxy.Close())
	}
	if d.units != nil {
		d.units.close()
	}
	if d.processes != nil {
		errs = append(errs, d.processes.Close())
	}
	errs = append(errs, d.holder.close(), closeOwn(d.listeners))
	for _, l := range d.locks {
		errs = append(errs, l.Close())
	}
	for _, o := range d.outlets {
		o.close()
	}
	return errors.Join(errs...)
}
