package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/backend/process"
)

// keptSockets is what a generation keeps between its runs: the sockets that it
// is handed, which proxyd holds open, or the ports that it binds.
type keptSockets struct {
	addresses map[string]net.Addr
	handed    []activation.Listener
	ports     []int
}

// openSockets fills in the run's addresses and the sockets that it is handed,
// the same as at its last run.
func (d *execDriver) openSockets(run *execRun) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.kept[run.launch.ID]
	if k == nil {
		var err error
		if k, err = d.makeSockets(run.launch.ID, run.config); err != nil {
			return err
		}
		d.kept[run.launch.ID] = k
	}
	run.addresses, run.held = k.addresses, map[string]int{}
	for _, l := range k.handed {
		run.held[l.Name] = l.FD
		run.files = append(run.files, process.File{Name: l.Name, FD: l.FD})
	}
	if !run.config.BindsItself() {
		return nil
	}
	for _, a := range k.addresses { // a program that died leaves its socket behind
		if err := removeSocket(a); err != nil {
			return err
		}
	}
	return nil
}

func removeSocket(a net.Addr) error {
	if a.Network() != "unix" {
		return nil
	}
	if err := os.Remove(a.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	return nil
}

// makeSockets picks the addresses of a generation and, where it is handed its
// sockets, makes them.
func (d *execDriver) makeSockets(id uint64, config *Config) (*keptSockets, error) {
	k := &keptSockets{addresses: map[string]net.Addr{}}
	for _, name := range d.listeners {
		var addr net.Addr = &net.UnixAddr{Net: "unix", Name: d.socketPath(id, name)}
		if config.WantsTCP(name) {
			tcp := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
			addr = tcp
			if config.BindsItself() {
				port, err := activation.FreePort()
				if err != nil {
					k.release()
					return nil, err
				}
				tcp.Port = port
				k.ports = append(k.ports, port)
			}
		}
		if !config.BindsItself() {
			err := removeSocket(addr)
			var l activation.Listener
			if err == nil {
				l, err = activation.Private(name, addr)
			}
			if err != nil {
				k.release()
				return nil, fmt.Errorf("make socket of listener %q: %w", name, err)
			}
			k.handed = append(k.handed, l)
			addr = l.Addr
		}
		k.addresses[name] = addr
	}
	return k, nil
}

func (d *execDriver) socketPath(id uint64, listener string) string {
	return filepath.Join(d.genDir(id), listener+".sock")
}

// unixAddresses is where a generation listens if it has nothing but unix
// sockets: all that can be known of one whose state was lost.
func (d *execDriver) unixAddresses(id uint64) map[string]string {
	addresses := map[string]string{}
	for _, name := range d.listeners {
		addresses[name] = "unix:" + d.socketPath(id, name)
	}
	return addresses
}

// adoptSockets keeps what an adopted run has for its next one: the ports that it
// binds, or the sockets that it was handed. Where those cannot be had back, they
// are the process's alone, and its next run gets new ones.
func (d *execDriver) adoptSockets(run *execRun) {
	k := &keptSockets{addresses: run.addresses}
	run.held = map[string]int{}
	for name, a := range run.addresses {
		if tcp, ok := a.(*net.TCPAddr); ok && run.config.BindsItself() {
			activation.ReservePort(tcp.Port)
			k.ports = append(k.ports, tcp.Port)
		}
		if run.config.BindsItself() {
			continue
		}
		l, err := activation.Recover(run.PID(), name, a)
		if err != nil {
			d.log.Debug("clients will not wait if this generation is started again", "generation", run.launch.ID, "error", err)
			k.release()
			return
		}
		run.held[name] = l.FD
		k.handed = append(k.handed, l)
	}
	// The order of descriptors is the order of listeners, as at the first start.
	slices.SortFunc(k.handed, func(a, b activation.Listener) int {
		return slices.Index(d.listeners, a.Name) - slices.Index(d.listeners, b.Name)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept[run.launch.ID] = k
}

// Release closes what was kept for a generation and removes its directory.
func (d *execDriver) Release(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.kept[id]; k != nil {
		k.release()
		delete(d.kept, id)
	}
	if err := os.RemoveAll(d.genDir(id)); err != nil {
		d.log.Warn("cannot remove a generation's directory", "generation", id, "error", err)
	}
}

func (k *keptSockets) release() {
	for _, l := range k.handed {
		_ = l.Close() // its directory goes next
	}
	for _, p := range k.ports {
		activation.ReleasePort(p)
	}
}

// values gives what the placeholders of a run stand for, and the port of its
// first listener that is TCP.
func (d *execDriver) values(run *execRun) (values map[string]string, port string) {
	values = map[string]string{
		"release": run.launch.Release, "generation": strconv.FormatUint(run.launch.ID, 10),
	}
	for i, name := range d.listeners {
		keys := []string{":" + name}
		if i == 0 {
			keys = append(keys, "") // plain {port} is the first listener's
		}
		for _, key := range keys {
			switch a := run.addresses[name].(type) {
			case *net.UnixAddr:
				values["socket"+key] = a.Name
			case *net.TCPAddr:
				values["address"+key], values["port"+key] = a.String(), strconv.Itoa(a.Port)
				if port == "" {
					port = strconv.Itoa(a.Port)
				}
			}
		}
	}
	return values, port
}

// commandLine fills the run's addresses into its command and environment. The
// environment is proxyd's own, without what systemd meant for proxyd.
func (d *execDriver) commandLine(run *execRun) (argv, env []string, dir string, err error) {
	values, port := d.values(run)
	if argv, err = Expand(run.config.Backend.Command, values); err != nil {
		return nil, nil, "", fmt.Errorf("expand command: %w", err)
	}
	if run.config.Backend.Dir != "" {
		expanded, err := Expand([]string{run.config.Backend.Dir}, values)
		if err != nil {
			return nil, nil, "", fmt.Errorf("expand backend.dir: %w", err)
		}
		dir = expanded[0]
	}
	env = activation.ScrubEnv(os.Environ())
	for _, k := range slices.Sorted(maps.Keys(run.config.Backend.Env)) {
		v, err := Expand([]string{run.config.Backend.Env[k]}, values)
		if err != nil {
			return nil, nil, "", fmt.Errorf("expand backend.env.%s: %w", k, err)
		}
		env = append(env, k+"="+v[0])
	}
	env = append(env,
		"PROXYD_SERVICE="+d.service, "PROXYD_GENERATION="+values["generation"], "PROXYD_RELEASE="+run.launch.Release, "PROXYD_CONTROL="+d.control)
	if run.config.BindsItself() && port != "" {
		env = append(env, "PORT="+port)
	}
	if check := backend.Check(d.config.Ready.Check); check == backend.CheckAuto || check == backend.CheckNotify {
		env = append(env, "NOTIFY_SOCKET="+d.notifyPath(run.launch.ID))
	}
	return argv, lastWins(env), dir, nil
}

// lastWins keeps the last of several settings of one variable: a program would
// see the first.
func lastWins(env []string) []string {
	at := map[string]int{}
	kept := env[:0:0]
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := at[k]; ok {
			kept[i] = kv
			continue
		}
		at[k] = len(kept)
		kept = append(kept, kv)
	}
	return kept
}
