package activation

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Probe tells whether Listen could open address now. The error is the one that
// Listen would give. It leaves nothing behind and no client can come in
// meanwhile: a TCP address is bound and not listened on, which somebody who
// listens there makes fail (socket(7), SO_REUSEADDR), and of a unix path only
// what is there is looked at.
func Probe(address string) error {
	addr, err := ParseAddress(address)
	if err != nil {
		return err
	}
	switch addr := addr.(type) {
	case *net.TCPAddr:
		err = probeTCP(addr)
	case *net.UnixAddr:
		err = probeUnix(addr.Name)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	return nil
}

func probeTCP(addr *net.TCPAddr) error {
	fd, err := bindAny(addr, 0, true)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func probeUnix(path string) error {
	if _, err := isStale(path, unix.SOCK_STREAM); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("there is no directory %s: %w", dir, err)
		}
		return fmt.Errorf("make a socket in %s: %w", dir, err)
	}
	return nil
}
