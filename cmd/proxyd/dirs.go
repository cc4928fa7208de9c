package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// runtimeDir tells where the control socket and the generations' sockets live:
// the flag, else what systemd made, else the place for root or for a user.
func runtimeDir(flag, name string) (string, error) {
	return placeFor(flag, "RUNTIME_DIRECTORY", "/run/proxyd", "XDG_RUNTIME_DIR", "", name, "--runtime-dir")
}

// stateDir tells where the durable state and the history live.
func stateDir(flag, name string) (string, error) {
	return placeFor(flag, "STATE_DIRECTORY", "/var/lib/proxyd", "XDG_STATE_HOME", ".local/state", name, "--state-dir")
}

func placeFor(flag, systemdVar, root, xdgVar, underHome, name, option string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	if dirs := os.Getenv(systemdVar); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":") // systemd.exec(5): several are joined by colons
		return first, nil
	}
	if os.Geteuid() == 0 {
		return filepath.Join(root, name), nil
	}
	base := os.Getenv(xdgVar)
	if home, err := os.UserHomeDir(); base == "" && underHome != "" && err == nil {
		base = filepath.Join(home, underHome)
	}
	if base == "" {
		return "", fmt.Errorf("no place is known for it: $%s is not set, say %s", xdgVar, option)
	}
	return filepath.Join(base, "proxyd", name), nil
}

// errTaken says that another proxyd runs the service.
var errTaken = errors.New("another proxyd runs this service")

// lockDirs locks both directories themselves, so that it works on a full disk
// too. The kernel gives the locks back however this process ends (flock(2)). The
// files are returned to be kept open, those locked so far also with an error.
func lockDirs(dirs ...string) (locks []*os.File, err error) {
	for _, dir := range slices.Compact(dirs) {
		f, err := os.Open(dir)
		if err != nil {
			return locks, fmt.Errorf("lock directory: %w", err)
		}
		locks = append(locks, f)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errTaken
		}
		if err != nil {
			return locks, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
	return locks, nil
}
