package activation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owner gives the user whom a socket belongs to: who has opened it, whoever has it
// now. Only that one can add sockets to its SO_REUSEPORT group: sk_uid in
// inet_csk_get_port, net/ipv4/inet_connection_sock.c, which is the owner of the
// socket's inode.
func (l Listener) Owner() (uid int, err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(l.FD, &stat); err != nil {
		return 0, fmt.Errorf("read owner of listener %q: %w", l.Name, err)
	}
	return int(stat.Uid), nil
}

// Shares tells whether a socket lets others listen at its address (SO_REUSEPORT).
func (l Listener) Shares() (bool, error) {
	n, err := unix.GetsockoptInt(l.FD, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	if err != nil {
		return false, fmt.Errorf("read SO_REUSEPORT of listener %q: %w", l.Name, err)
	}
	return n != 0, nil
}

// Listening gives the users whose TCP sockets listen at a port, at any address:
// the tables in /proc/net, proc(5), tell everybody of all sockets.
func Listening(port int) (users []int, err error) {
	const state, local, uid, listens = 3, 1, 7, "0A" // fields, and TCP_LISTEN
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("look for listening sockets: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) <= uid || f[state] != listens || !strings.HasSuffix(f[local], fmt.Sprintf(":%04X", port)) {
				continue
			}
			if user, err := strconv.Atoi(f[uid]); err == nil && !slices.Contains(users, user) {
				users = append(users, user)
			}
		}
	}
	return users, nil
}
