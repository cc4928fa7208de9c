package main

import (
	"context"
	"errors"
	"strings"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// client gives the one service that the command line means, or the only one.
func (a *app) client(ctx context.Context) (*control.Client, error) {
	clients, err := a.clients(ctx)
	if err != nil {
		return nil, err
	}
	if len(clients) > 1 {
		var names []string
		for _, c := range clients {
			names = append(names, c.name)
		}
		return nil, &control.Error{Code: control.Usage,
			Message: "several services run here: " + strings.Join(names, ", "),
			Hint:    "say which one with -s NAME"}
	}
	return clients[0].Client, nil
}

// named is a client and the name that its service was found by; none where the
// socket was given.
type named struct {
	*control.Client
	name string
}

// clients gives every service that the command line may mean: at least one.
func (a *app) clients(ctx context.Context) ([]named, error) {
	if a.socket != "" && a.service != "" {
		return nil, usage("--service and --socket exclude each other")
	}
	if a.socket != "" {
		return []named{{Client: control.NewClient(a.socket)}}, nil
	}
	places, err := control.Find(ctx, a.dirs), error(nil)
	if a.service != "" {
		if places, err = control.FindNamed(ctx, a.dirs, a.service); err != nil {
			return nil, err
		}
	}
	var found []named
	var sockets []string
	for _, p := range places {
		sockets = append(sockets, p.Socket)
		if !errors.Is(p.Err, control.ErrNotRunning) { // what may not be told from here is tried
			found = append(found, named{control.NewClient(p.Socket), p.Name})
		}
	}
	switch {
	case len(found) == 0:
		return nil, a.nobody(sockets)
	case len(found) > 1 && a.service != "":
		return nil, &control.Error{Code: control.Usage,
			Message: "service " + a.service + " runs twice: " + strings.Join(sockets, ", "),
			Hint:    "say which one with --socket PATH"}
	}
	return found, nil
}

// nobody is the error for when no service answers. Sockets are those that were
// found dead.
func (a *app) nobody(sockets []string) error {
	e := &control.Error{Code: control.NotRunning}
	switch {
	case len(sockets) > 0:
		e.Message = "proxyd is not running: nobody answers at " + strings.Join(sockets, ", ")
	case a.service != "":
		e.Message = "proxyd is not running for service " + a.service + ": there is no such name in " + strings.Join(a.dirs, ", ")
	default:
		e.Message = "proxyd is not running: no service was found in " + strings.Join(a.dirs, ", ")
	}
	name := a.service
	if name == "" {
		name = "NAME"
	}
	e.Hint = "`systemctl status proxyd@" + name + "` tells more where systemd runs it; --socket PATH names a socket elsewhere"
	return e
}
