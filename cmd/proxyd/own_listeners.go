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

// Where proxyd opens the listeners itself, its generations hold the groups of
// the direct path open as well, and a proxyd that was killed finds them there
// again: by cookie, as they were written down, and in their order.

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
// members, else single sockets. dirs are where they are written down. What it
// gives is the caller's, also with an error.
func openOwn(c *Config, log hclog.Logger, dirs ...string) (listeners []activation.Listener, err error) {
	known, err := readGroups(dirs...)
	if err != nil {
		return nil, err
	}
	members := c.membersToMake()
	var groups []ownGroup
	for _, l := range c.Listeners {
		opened, err := recoverOwn(l, known, log)
		switch {
		case err != nil:
			return listeners, otherUsers(l, err)
		case len(opened) > 0:
			members = len(opened) // those of the others as many
		case members > 1:
			if opened, err = activation.ListenGroup(l.Name, l.Address, members); err != nil {
				return listeners, otherUsers(l, err)
			}
		default:
			single, err := activation.Listen(l.Name, l.Address)
			if err != nil {
				return listeners, otherUsers(l, err)
			}
			opened = []activation.Listener{single}
		}
		listeners = append(listeners, opened...)
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

// recoverOwn looks for what a proxyd before this one has opened; none is no
// error. What is not as it was written down is said.
func recoverOwn(l ListenerConfig, known []ownGroup, log hclog.Logger) ([]activation.Listener, error) {
	for _, g := range known {
		if g.Name != l.Name || g.Address != l.Address {
			continue
		}
		opened, err := activation.RecoverGroup(l.Name, g.Cookies)
		if errors.Is(err, activation.ErrNotHeld) {
			log.Info("the sockets of the last proxyd have ended with all who held them, opening new ones", "listener", l.Name, "address", l.Address)
			return nil, nil
		}
		if errors.Is(err, activation.ErrHeldInPart) {
			// A program closed those that it was not told of. It cannot be steered to
			// any more, and is replaced; clients must be served all the same.
			log.Warn("some sockets of the last proxyd are gone, so none of them is steered to any more; opening one beside them",
				"listener", l.Name, "address", l.Address, "error", err)
			one, err := activation.ListenBeside(l.Name, l.Address)
			return []activation.Listener{one}, err
		}
		if err == nil {
			log.Info("the sockets of the last proxyd are there, all of them", "listener", l.Name, "address", l.Address, "members", len(opened))
		}
		return opened, err
	}
	return nil, nil
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
