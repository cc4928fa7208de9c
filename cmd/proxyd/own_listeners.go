package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

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

func groupsFile(runtimeDir string) string { return filepath.Join(runtimeDir, "groups.json") }

// openOwn opens the listeners of the config: groups where generations can have
// members, else single sockets. What it gives is the caller's, also with an
// error.
func openOwn(c *Config, runtimeDir string) (listeners []activation.Listener, err error) {
	known, err := readGroups(runtimeDir)
	if err != nil {
		return nil, err
	}
	members := c.membersToMake()
	var groups []ownGroup
	for _, l := range c.Listeners {
		opened, err := recoverOwn(l, known)
		switch {
		case err != nil:
			return listeners, err
		case len(opened) > 0:
			members = len(opened) // those of the others as many
		case members > 1:
			if opened, err = activation.ListenGroup(l.Name, l.Address, members); err != nil {
				return listeners, err
			}
		default:
			single, err := activation.Listen(l.Name, l.Address)
			if err != nil {
				return listeners, err
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
	return listeners, writeGroups(runtimeDir, groups)
}

// recoverOwn looks for what a proxyd before this one has opened; none is no
// error.
func recoverOwn(l ListenerConfig, known []ownGroup) ([]activation.Listener, error) {
	for _, g := range known {
		if g.Name != l.Name || g.Address != l.Address {
			continue
		}
		opened, err := activation.RecoverGroup(l.Name, g.Cookies)
		if errors.Is(err, activation.ErrNotHeld) {
			return nil, nil // they ended with all who held them
		}
		return opened, err
	}
	return nil, nil
}

func readGroups(runtimeDir string) (groups []ownGroup, err error) {
	b, err := os.ReadFile(groupsFile(runtimeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && strings.TrimSpace(string(b)) != "" {
		if json.Unmarshal(b, &groups) != nil {
			return nil, nil // half of nothing: as if there were none
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read listeners of the last proxyd: %w", err)
	}
	return groups, nil
}

func writeGroups(runtimeDir string, groups []ownGroup) error {
	path := groupsFile(runtimeDir)
	if len(groups) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget listeners of the last proxyd: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	// Not fsynced by itself: at a reboot the sockets are gone with it.
	if err := renameio.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write down listeners: %w", err)
	}
	return nil
}
