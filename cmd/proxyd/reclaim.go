package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/seed8fae2174/proxyd/activation"
)

// socketNote is where a generation listens. It is part of what is written down of
// a run, and stands in the generation's directory for when that is lost.
type socketNote struct {
	Addresses map[string]string `json:"addresses,omitempty"`
	Member    int               `json:"member,omitempty"` // of the listeners' groups, which it was handed
	Sockets   []memberSocket    `json:"sockets,omitempty"`
	Fixed     string            `json:"fixed,omitempty"` // the name of its fixed addresses
	Why       string            `json:"why_relay,omitempty"`
}

// memberSocket is one socket of a member. By its cookie it is known for what it is,
// whatever else is at its address by then.
type memberSocket struct {
	Address string `json:"address"`
	Cookie  uint64 `json:"cookie"`
}

func (k *keptSockets) note() socketNote {
	return socketNote{Addresses: textAddresses(k.addresses), Member: k.member, Sockets: k.sockets, Fixed: k.fixed, Why: k.why}
}

// notesName is the note in a generation's directory.
const notesName = "sockets.json"

func (s *generationSockets) notePath(id uint64) string {
	return filepath.Join(s.genDir(id), notesName)
}

// noteSockets leaves the note. Nothing depends on it but a lost state.
func (s *generationSockets) noteSockets(id uint64, k *keptSockets) {
	b, err := json.Marshal(k.note())
	if err == nil {
		err = os.WriteFile(s.notePath(id), b, 0o600)
	}
	if err != nil {
		s.log.Warn("cannot note where a generation listens", "generation", id, "error", err)
	}
}

// reclaimed is what an earlier run of proxyd gave a generation.
type reclaimed struct {
	addresses map[string]net.Addr
	fixed     string
	why       string
	member    int
	handed    []activation.Listener // of the member
	sockets   []memberSocket        // of the member
	stranded  string                // why no connection can be given to it any more; empty: it can
}

// reclaim makes sure that a generation of an earlier proxyd can still be reached,
// before it is taken over: what it listens on is known, from known or from the
// note, its member of the listeners' groups is the same as then, it has an address
// for each listener of today, and the path of a unix socket that it was handed is
// there, for it cannot be made again. Else it is
// stranded. It makes the generation's directory, where that has gone.
// Where the take-over fails later, abandon gives back what reclaim took.
func (s *generationSockets) reclaim(id uint64, config *Config, known socketNote) (*reclaimed, error) {
	if len(known.Addresses) == 0 { // found, rather than remembered
		b, err := os.ReadFile(s.notePath(id))
		if err == nil {
			err = json.Unmarshal(b, &known)
		}
		if err != nil {
			return &reclaimed{stranded: fmt.Sprintf("nothing tells where it listens: %v", err)}, s.makeDir(id)
		}
	}
	if err := s.makeDir(id); err != nil {
		return nil, err
	}
	r := &reclaimed{fixed: known.Fixed, why: known.Why, member: known.Member, sockets: known.Sockets}
	var err error
	if r.addresses, err = parseAddresses(known.Addresses); err != nil {
		return nil, err
	}
	if r.member != 0 {
		if r.handed, err = s.direct.keep(id, known); err != nil {
			return r.strand(err.Error()), nil
		}
		for _, l := range r.handed {
			s.restoreFlags(id, l.FD)
		}
		return r, nil
	}
	for _, name := range s.listeners {
		if r.addresses[name] == nil {
			return r.strand(fmt.Sprintf("it was started before there was a listener %q", name)), nil
		}
	}
	for _, a := range r.addresses {
		if a.Network() == "unix" && !config.BindsItself() && r.fixed == "" {
			if _, err := os.Lstat(a.String()); err != nil {
				return r.strand(fmt.Sprintf("its socket has gone: %v", err)), nil
			}
		}
	}
	return r, nil
}

// strand notes that nothing of it can be had back.
func (r *reclaimed) strand(why string) *reclaimed {
	r.stranded, r.handed = why, nil
	return r
}

// abandon gives up what reclaim took for a generation that could not be taken
// over.
func (s *generationSockets) abandon(id uint64) { s.direct.release(id) }
