package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
)

// Where proxyd opens the listeners itself, a process beside it (holder.go) and its
// generations hold the groups of the direct path open as well, and a proxyd that was
// killed finds them there again: by cookie, as they were written down, and in their
// order.

// ownGroup is one address in the file of groups.
type ownGroup struct {
	Name    string   `json:"name"`
	Address string   `json:"address"` // as the config has it
	Cookies []uint64 `json:"cookies"`
}

// groupsNote is that file. It stands in the runtime directory, and in the state
// directory for when that is lost; a note of an earlier boot means nothing.
type groupsNote struct {
	Boot   string     `json:"boot"`
	Groups []ownGroup `json:"groups"`
}

const groupsName = "groups.json"

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // there is none: all are of one boot
	return strings.TrimSpace(string(b))
}

// openOwn opens the listeners of the config: groups where generations can have
// members, else single sockets. What a proxyd before this one has opened is had back,
// from held, which are the caller's, or from whoever else has it. dirs are where they
// are written down. What it gives is the caller's, also with an error. What is not as it
// was written down is said.
func openOwn(c *Config, held []int, log hclog.Logger, dirs ...string) (listeners []activation.Listener, err error) {
	known, err := readGroups(dirs...)
	if err != nil {
		return nil, err
	}
	members := c.membersToMake()
	var groups []ownGroup
	for _, l := range c.Listeners {
		before := groupOf(l, known)
		opened, err := recoverOwn(l, before, held)
		switch {
		case errors.Is(err, activation.ErrHeldInPart):
			// A program closed those that it was not told of. It cannot be steered to
			// any more, and is replaced; clients must be served all the same.
			log.Warn("some sockets of the last proxyd are gone, so none of them is steered to any more; opening one beside them",
				"listener", l.Name, "address", l.Address, "error", err)
			opened, err = openBeside(l)
		case err == nil && len(opened) > 0:
			members = len(opened) // those of the others as many
			log.Info("the sockets of the last proxyd are there, all of them", "listener", l.Name, "address", l.Address, "members", len(opened))
		case err == nil:
			opened, err = openAnew(l, members)
			switch {
			case before == nil:
			case err == nil:
				log.Info("the sockets of the last proxyd have ended with all who held them, opened new ones", "listener", l.Name, "address", l.Address)
			case errors.Is(err, activation.ErrInUse):
				// Generations hold it that let nobody take it from them.
				log.Warn("the sockets of the last proxyd are held by whom proxyd may not trace; opening one beside them", "listener", l.Name, "address", l.Address)
				opened, err = openBeside(l)
			}
		}
		if err != nil {
			return listeners, otherUsers(l, err)
		}
		listeners = append(listeners, opened...)
		if before != nil && len(opened) == 1 {
			// The next proxyd must know whose the others at this address are.
			groups = append(groups, *before)
		}
		if len(opened) > 1 {
			group := ownGroup{Name: l.Name, Address: l.Address}
			for _, m := range opened {
				cookie, err := m.Cookie()
				if err != nil {
					return listeners, err
				}
				group.Cookies = append(group.Cookies, cookie)
			}
			groups = append(groups, group)
		}
	}
	return listeners, writeGroups(groups, dirs...)
}

// openAnew opens a listener where nobody has it.
func openAnew(l ListenerConfig, members int) ([]activation.Listener, error) {
	if members > 1 {
		return activation.ListenGroup(l.Name, l.Address, members)
	}
	single, err := activation.Listen(l.Name, l.Address)
	if err != nil {
		return nil, err
	}
	return []activation.Listener{single}, nil
}

// openBeside opens one socket that gets all new connections, at an address where
// generations have others of the same group.
func openBeside(l ListenerConfig) ([]activation.Listener, error) {
	one, err := activation.ListenBeside(l.Name, l.Address)
	if err != nil {
		return nil, err
	}
	return []activation.Listener{one}, nil
}

// groupOf gives what is known of a listener's group; nil: nothing.
func groupOf(l ListenerConfig, known []ownGroup) *ownGroup {
	for _, g := range known {
		if g.Name == l.Name && g.Address == l.Address {
			return &g
		}
	}
	return nil
}

// recoverOwn looks for the group that a proxyd before this one has opened; none is
// no error, a part of it is ErrHeldInPart. It changes nothing.
func recoverOwn(l ListenerConfig, before *ownGroup, held []int) ([]activation.Listener, error) {
	if before == nil {
		return nil, nil
	}
	opened, err := activation.RecoverGroup(l.Name, before.Cookies, held...)
	if errors.Is(err, activation.ErrNotHeld) {
		return nil, nil // they ended with all who held them
	}
	return opened, err
}

// otherUsers adds to the error of an address that is in use whose it is, where that
// is another user: nobody else can join, or take over, what its generations hold.
func otherUsers(l ListenerConfig, err error) error {
	addr, parseErr := activation.ParseAddress(l.Address)
	tcp, ok := addr.(*net.TCPAddr)
	if !errors.Is(err, unix.EADDRINUSE) || parseErr != nil || !ok {
		return err
	}
	users, _ := activation.Listening(tcp.Port)
	for _, uid := range users {
		if uid != os.Geteuid() {
			return fmt.Errorf("%w (%s: uid %d listens there, and proxyd is uid %d; if these are generations of an earlier proxyd, start it as that user once more, or end them)",
				err, reasonOtherUID, uid, os.Geteuid())
		}
	}
	return err
}

// readGroups gives the groups that the last proxyd of this boot has opened, by the
// first of dirs that tells.
func readGroups(dirs ...string) ([]ownGroup, error) {
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, groupsName))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read listeners of the last proxyd: %w", err)
		}
		var note groupsNote
		if err == nil && json.Unmarshal(b, &note) == nil && note.Boot == bootID() {
			return note.Groups, nil
		}
	}
	return nil, nil
}

// writeGroups writes to all of dirs; one that takes it is enough, as the disk of
// the state may be full. It is not fsynced: at a reboot the sockets are gone with
// it.
func writeGroups(groups []ownGroup, dirs ...string) error {
	b, err := json.Marshal(groupsNote{bootID(), groups})
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if err := renameio.WriteFile(filepath.Join(dir, groupsName), b, 0o600); err != nil {
			errs = append(errs, fmt.Errorf("write down listeners: %w", err))
		}
	}
	if len(errs) < len(dirs) {
		return nil
	}
	return errors.Join(errs...)
}
