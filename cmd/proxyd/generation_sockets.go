package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend"
)

// generationSockets makes and keeps the generations' own sockets, whichever
// driver runs them. A generation that is handed its sockets keeps them from its
// first start until release: proxyd holds them open while it is started again,
// so its clients wait instead of failing. Under systemd they are also kept in its
// descriptor store, so that they outlive proxyd.
type generationSockets struct {
	dir       string   // the runtime directory
	listeners []string // names, in the order that they are handed over
	direct    *directPath
	flags     *flagNotes
	log       hclog.Logger

	mu     sync.Mutex
	kept   map[uint64]*keptSockets
	stored map[string][]activation.Listener // of an earlier proxyd, by storeName
}

// keptSockets is what a generation keeps between its runs: the sockets that it
// is handed, which proxyd holds open, or the ports that it binds.
type keptSockets struct {
	addresses map[string]net.Addr
	handed    []activation.Listener
	member    int            // of the listeners' groups, where handed are borrowed from these; 0: they are its own
	sockets   []memberSocket // of the member
	ports     []int
	fixed     string // the name of its fixed addresses
	why       string // it is not on the direct path; empty: unknown, or it is
	stranded  string // no connection can be given to it any more, and why
	misfit    bool   // its next run is on other sockets: see fit.go
}

// newGenerationSockets takes over what an earlier proxyd stored.
func newGenerationSockets(dir string, listeners []string, stored []activation.Listener, log hclog.Logger) *generationSockets {
	s := &generationSockets{dir: dir, listeners: listeners, flags: newFlagNotes(log), log: log,
		kept: map[uint64]*keptSockets{}, stored: map[string][]activation.Listener{}}
	for _, l := range stored {
		s.stored[l.Name] = append(s.stored[l.Name], l)
	}
	return s
}

// storeName names a generation's socket in systemd's descriptor store.
func storeName(id uint64, listener string) string {
	return fmt.Sprintf("generation/%d/%s", id, listener)
}

// takeStored gives the socket at addr that an earlier proxyd stored.
func (s *generationSockets) takeStored(id uint64, listener string, addr net.Addr) (activation.Listener, bool) {
	name := storeName(id, listener)
	i := slices.IndexFunc(s.stored[name], func(l activation.Listener) bool { return textAddress(l.Addr) == textAddress(addr) })
	if i < 0 {
		return activation.Listener{}, false
	}
	l := s.stored[name][i]
	s.stored[name] = slices.Delete(s.stored[name], i, i+1)
	l.Name = listener
	return l, true
}

// genDir is a generation's own directory, below the runtime directory.
func (s *generationSockets) genDir(id uint64) string {
	return filepath.Join(s.dir, "gen-"+strconv.FormatUint(id, 10))
}

// makeDir makes a generation's directory. It is searchable by all, as a program
// may drop its privileges before it speaks to its notify socket; the sockets in
// it have modes of their own.
func (s *generationSockets) makeDir(id uint64) error {
	if err := os.MkdirAll(s.genDir(id), 0o711); err != nil {
		return fmt.Errorf("make generation directory: %w", err)
	}
	return nil
}

// open makes the generation's directory and gives its addresses and the sockets
// that it is handed, the same as at its last run. What it gives is not changed
// afterwards, and closed by release. A generation that moves is on the direct path
// or does not start, and so is one that is staged where the config insists on it.
func (s *generationSockets) open(id uint64, config *Config, launch backend.Launch) (*keptSockets, error) {
	if err := s.makeDir(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	k := s.kept[id]
	misfits := k != nil && k.misfit
	if misfits {
		delete(s.kept, id)
		k = nil
	}
	s.mu.Unlock()
	if misfits {
		s.direct.release(id) // nothing of it runs: it was cleared
	}
	if k == nil || k.stranded != "" { // its next run is on sockets of today
		s.direct.unstrand(id)
		// Not under mu: to be lent a member may take a second, and longer on a full
		// machine, and the supervisor, who releases others, must not wait. Nobody opens
		// or releases this generation meanwhile.
		var err error
		if k, err = s.make(id, config, launch); err != nil {
			return nil, err
		}
		s.keep(id, k)
	} else {
		var err error
		k, err = s.revive(id, k)
		s.keep(id, k) // also with an error: some may be others by now
		if err != nil {
			return nil, err
		}
	}
	s.noteSockets(id, k)
	if k.member != 0 {
		s.direct.recheck() // what its last run did to its sockets is done
	}
	for _, l := range k.handed {
		// At each start: the flag is the socket's, and a program that had it before
		// may have changed it.
		if err := unix.SetNonblock(l.FD, config.Backend.NonBlocking); err != nil {
			return nil, fmt.Errorf("set O_NONBLOCK of listener %q: %w", l.Name, err)
		}
	}
	if !config.BindsItself() || k.fixed != "" {
		return k, nil
	}
	for _, a := range k.addresses { // a program that died leaves its socket behind
		if err := removeSocket(a); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (s *generationSockets) keep(id uint64, k *keptSockets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[id] = k
}

// revive gives what a generation keeps back in use where its last run shut sockets
// down, as programs do to wake a thread that waits in accept(2). What was kept is not
// changed.
func (s *generationSockets) revive(id uint64, k *keptSockets) (*keptSockets, error) {
	if k.member != 0 {
		return k, s.direct.revive(id)
	}
	now := *k
	now.handed = slices.Clone(k.handed)
	for i, l := range k.handed {
		revived, changed, err := activation.Revive(l)
		if err != nil {
			return &now, err
		}
		now.handed[i] = revived
		if changed && revived.FD != l.FD {
			s.unstore(storeName(id, l.Name))
			if err := activation.Store(storeName(id, l.Name), revived.FD); err != nil {
				s.log.Warn("this socket will not outlive proxyd", "generation", id, "listener", l.Name, "error", err)
			}
		}
	}
	return &now, nil
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

// make picks the addresses of a generation and, where it is handed its sockets,
// makes them. mu is not held, see open.
func (s *generationSockets) make(id uint64, config *Config, launch backend.Launch) (*keptSockets, error) {
	if config.Backend.namedByFixed() {
		return s.takeFixed(id, config)
	}
	k := &keptSockets{addresses: map[string]net.Addr{}}
	if k.handed, k.member, k.why = s.direct.lend(id, config); k.member != 0 {
		for _, l := range k.handed {
			k.addresses[l.Name] = l.Addr
		}
		var err error
		if k.sockets, err = s.direct.socketsOf(k.member); err != nil {
			s.direct.release(id)
		}
		return k, err
	}
	switch {
	case launch.Moves:
		return nil, fmt.Errorf("move to the direct path: %s", k.why)
	case launch.Staged && config.Backend.Path == pathDirect && k.why != reasonBinds:
		return nil, fmt.Errorf("it cannot be on the direct path, as backend.path = \"direct\" demands: %s: %s",
			k.why, "wait until a generation has drained, or for a minute where proxyd or a generation ended just now; end one with `proxyctl retire` or `proxyctl stop`; or write path = \"auto\"")
	}
	s.direct.relayed(id, k.why)
	for _, name := range s.listeners {
		var addr net.Addr = &net.UnixAddr{Net: "unix", Name: s.socketPath(id, name)}
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
			if err := activation.Store(storeName(id, name), l.FD); err != nil {
				s.log.Warn("this socket will not outlive proxyd", "generation", id, "listener", name, "error", err)
			}
			k.handed = append(k.handed, l)
			addr = l.Addr
		}
		k.addresses[name] = addr
	}
	return k, nil
}

// takeFixed takes the first of the fixed addresses that no generation has.
func (s *generationSockets) takeFixed(id uint64, config *Config) (*keptSockets, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []string
	for _, name := range config.Backend.fixedNames() {
		by := s.holderOf(name)
		if by != 0 {
			taken = append(taken, fmt.Sprintf("%s by generation %d", name, by))
			continue
		}
		addresses, err := parseAddresses(config.Backend.fixedAddresses(name, s.listeners[0]))
		if err != nil {
			return nil, err
		}
		s.kept[id] = &keptSockets{addresses: addresses, fixed: name}
		return s.kept[id], nil
	}
	if len(taken) == 0 {
		return nil, fmt.Errorf("its unit is %s, and the config has no [[backend.fixed]] any more", config.Backend.Unit)
	}
	return nil, fmt.Errorf("all fixed addresses are taken (%s): end one with `proxyctl retire` or `proxyctl stop`", strings.Join(taken, ", "))
}

// holderOf gives the generation that has the fixed addresses of a name, 0 where
// none has.
func (s *generationSockets) holderOf(name string) uint64 {
	for id, k := range s.kept {
		if k.fixed == name {
			return id
		}
	}
	return 0
}

func (s *generationSockets) socketPath(id uint64, listener string) string {
	return filepath.Join(s.genDir(id), listener+".sock")
}

// adopt keeps what an adopted run has for its next one: the ports that it binds,
// or the sockets that it was handed: systemd stored them, or else pid holds them.
// Where those cannot be had back, they are the process's alone, and its next run
// gets new ones. It comes after reclaim.
func (s *generationSockets) adopt(id uint64, config *Config, pid int, r *reclaimed) *keptSockets {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.recover(id, config, pid, r)
	s.kept[id] = k
	s.noteSockets(id, k)
	return k
}

func (s *generationSockets) recover(id uint64, config *Config, pid int, r *reclaimed) *keptSockets {
	addresses, fixed := r.addresses, r.fixed
	k := &keptSockets{addresses: addresses, fixed: fixed, why: r.why, member: r.member, sockets: r.sockets, stranded: r.stranded}
	if r.stranded != "" {
		s.direct.strand(id, k)
		return k
	}
	if r.member != 0 {
		k.handed = r.handed
		return k
	}
	s.direct.adopted(id, config, r.why)
	for name, a := range addresses {
		if fixed != "" { // the program's own, whatever the config says by now
			continue
		}
		if config.BindsItself() {
			if tcp, ok := a.(*net.TCPAddr); ok {
				activation.ReservePort(tcp.Port)
				k.ports = append(k.ports, tcp.Port)
			}
			continue
		}
		l, found := s.takeStored(id, name, a)
		var err error
		if !found {
			l, err = activation.Recover(pid, name, a)
		}
		if err != nil {
			s.log.Info("clients will not wait if this generation is started again", "generation", id, "error", err)
			k.release()
			return &keptSockets{addresses: addresses, why: r.why}
		}
		k.handed = append(k.handed, l)
	}
	// The order of descriptors is the order of listeners, as at the first start.
	slices.SortFunc(k.handed, func(a, b activation.Listener) int {
		return slices.Index(s.listeners, a.Name) - slices.Index(s.listeners, b.Name)
	})
	if r.why == reasonBlocks && len(k.handed) > 0 {
		s.direct.learn(id, k.blocks(), config)
	}
	return k
}

// release closes what was kept for a generation and removes its directory.
func (s *generationSockets) release(id uint64) {
	defer s.direct.release(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[id]; k != nil {
		k.release()
		for _, l := range k.handed {
			if k.member == 0 {
				s.unstore(storeName(id, l.Name))
			}
		}
		delete(s.kept, id)
	}
	s.flags.forget(s.flagsPath(id))
	if err := os.RemoveAll(s.genDir(id)); err != nil {
		s.log.Warn("cannot remove a generation's directory", "generation", id, "error", err)
	}
}

func (s *generationSockets) unstore(name string) {
	if err := activation.Unstore(name); err != nil {
		s.log.Warn("cannot drop a stored socket", "name", name, "error", err)
	}
}

// sweep gives up what earlier proxyds left of generations that are none of keep:
// stored sockets and, but for those that are noted, directories.
func (s *generationSockets) sweep(keep, noted []uint64) error {
	s.mu.Lock()
	for name, left := range s.stored {
		for _, l := range left {
			_ = l.Close()
		}
		var id uint64
		if n, _ := fmt.Sscanf(name, "generation/%d/", &id); n == 0 || len(left) > 0 && !slices.Contains(keep, id) {
			s.unstore(name)
		}
	}
	clear(s.stored)
	s.mu.Unlock()
	dirs, err := filepath.Glob(filepath.Join(s.dir, "gen-*"))
	for _, dir := range dirs {
		id, parseErr := strconv.ParseUint(filepath.Base(dir)[len("gen-"):], 10, 64)
		if parseErr == nil && !slices.Contains(keep, id) && !slices.Contains(noted, id) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

func (k *keptSockets) release() {
	for _, l := range k.handed {
		if k.member == 0 {
			_ = l.Close() // its directory goes next
		}
	}
	for _, p := range k.ports {
		activation.ReleasePort(p)
	}
}

// waiting counts the connections in the queue of a listener that proxyd holds
// open; ok is false where it holds none.
func (k *keptSockets) waiting(listener string) (n int, ok bool) {
	for _, l := range k.handed {
		if l.Name == listener {
			queued, err := activation.QueueLength(l.FD)
			if err != nil {
				return 0, false
			}
			n, ok = n+queued, true
		}
	}
	return n, ok
}
