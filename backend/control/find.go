package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Place is where the control socket of a service lies, and whether someone
// answers there.
type Place struct {
	Name   string
	Socket string
	// Err is nil where someone answers. It is ErrNotRunning where nobody does,
	// and ErrNotPermitted where we may not connect, so that it cannot be told.
	Err error
}

// SocketIn gives the path of the control socket in a service's runtime directory.
func SocketIn(runtimeDir string) string { return filepath.Join(runtimeDir, "control.sock") }

// RuntimeDirs gives the directories that hold the runtime directories of this
// host's services: /run/proxyd, and below $XDG_RUNTIME_DIR those that the user
// runs.
func RuntimeDirs(getenv func(string) string) []string {
	dirs := []string{"/run/proxyd"}
	if xdg := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(xdg) {
		dirs = append(dirs, filepath.Join(xdg, "proxyd"))
	}
	return dirs
}

// Find gives the services that have a control socket in dirs, in the order of
// dirs and names. What is not named as a service is passed over, and so is a
// directory that is not there or may not be read.
func Find(ctx context.Context, dirs []string) []Place {
	var places []Place
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if CheckName(e.Name()) != nil {
				continue
			}
			if p, ok := placeAt(ctx, dir, e.Name()); ok {
				places = append(places, p)
			}
		}
	}
	return places
}

// FindNamed gives the places of one service, of which each of dirs may hold one.
func FindNamed(ctx context.Context, dirs []string, name string) ([]Place, error) {
	if err := CheckName(name); err != nil {
		return nil, &Error{Code: Usage, Message: "service: " + err.Error()}
	}
	var places []Place
	for _, dir := range dirs {
		if p, ok := placeAt(ctx, dir, name); ok {
			places = append(places, p)
		}
	}
	return places, nil
}

// probeTimeout bounds how long one socket is tried; a unix socket answers at
// once or not at all.
const probeTimeout = time.Second

func placeAt(ctx context.Context, dir, name string) (Place, bool) {
	p := Place{Name: name, Socket: SocketIn(filepath.Join(dir, name))}
	info, err := os.Lstat(p.Socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Err = ErrNotPermitted
		return p, true
	case err != nil || info.Mode().Type() != fs.ModeSocket:
		return p, false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, p.Socket)
	switch {
	case err == nil:
		conn.Close()
	case isDenied(err):
		p.Err = ErrNotPermitted
	case isAbsent(err):
		p.Err = ErrNotRunning
	case errors.Is(err, context.DeadlineExceeded): // its queue is full: it is there, and slow
	default:
		p.Err = &Error{Code: Failed, Message: fmt.Sprintf("try %s: %v", p.Socket, err)}
	}
	return p, true
}
