package activation

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// storeMark is what makes a name in the service manager's descriptor store
// different from every listener's: CheckName allows no "/".
const storeMark = "/"

// ErrStoreName is a name that cannot be one in the descriptor store.
var ErrStoreName = errors.New(`a name in the descriptor store has a "/", no ":" and no control characters`)

// Store gives a duplicate of fd to the service manager that started this process,
// which keeps it open whatever becomes of the process and passes it to the next
// one: FDSTORE=1 in sd_notify(3), where FileDescriptorStoreMax= allows it. name
// must hold a "/"; the same may be given to several. Where no manager asked to
// be told, it does nothing.
//
// FDPOLL=0, as else the manager would drop a socket at an error or hang-up. It
// compares each descriptor with all that it has, so the store is for few.
func Store(name string, fd int) error {
	if err := checkStoreName(name); err != nil {
		return err
	}
	return tellManager("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

// Unstore has the manager drop all that it was given under name. Where there is
// none, nothing happens.
func Unstore(name string) error {
	if err := checkStoreName(name); err != nil {
		return err
	}
	return tellManager("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// checkStoreName goes by fdname_is_valid of systemd.
func checkStoreName(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 127 || r == ':' })
	if bad || len(name) > 255 || !strings.Contains(name, storeMark) {
		return fmt.Errorf("bad name %q: %w", name, ErrStoreName)
	}
	return nil
}

// tellManager sends one message to NOTIFY_SOCKET, with rights. go-systemd's
// SdNotify sends no descriptors.
func tellManager(state string, rights []byte) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tell service manager: %w", err)
	}
	defer unix.Close(fd)
	for {
		// A leading @ stands for an abstract address, here as in sd_notify(3).
		err := unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: path}, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("tell service manager: %w", err)
		default:
			return nil
		}
	}
}

// inheritStored takes a descriptor that an earlier process stored. Its flags, but
// for FD_CLOEXEC, are shared with whoever has it and stay as they are.
func inheritStored(fd int, name string) (Listener, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return Listener{}, errors.New("is not open, though LISTEN_FDS counts it")
	}
	unix.CloseOnExec(fd)
	if err := checkListening(fd); err != nil {
		return Listener{}, err
	}
	addr, err := boundTo(fd)
	if err != nil {
		return Listener{}, err
	}
	return Listener{Name: name, FD: fd, Addr: addr, Source: SourceProxyd}, nil
}
