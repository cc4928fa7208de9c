package activation

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"

	"golang.org/x/sys/unix"
)

// DefaultName is the name of a listener that nobody named.
const DefaultName = "main"

// Where a listener came from, as status shows it.
const (
	SourceSystemd = "systemd"
	SourceProxyd  = "proxyd"
)

// Errors that a caller may want to tell apart.
var (
	ErrName     = errors.New("a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit")
	ErrAddress  = errors.New("not an address to listen on")
	ErrTooLong  = errors.New("longer than the 107 bytes of a unix socket address")
	ErrInUse    = errors.New("somebody listens there already")
	ErrNoSocket = errors.New("a file that is not a socket is there")
	ErrNoPort   = errors.New("no free loopback port found")
)

// Listener is a listening stream socket.
type Listener struct {
	Name   string   // FileDescriptorName=, or the name in the config
	FD     int      // owned by whoever holds the Listener; FD_CLOEXEC is set
	Addr   net.Addr // *net.TCPAddr or *net.UnixAddr, as bound
	Source string   // SourceSystemd or SourceProxyd
	// Clients are connections that were accepted from it while it was opened, in
	// their order, see ListenBeside; owned like FD, but not duplicated with it.
	Clients []int

	file   socketFile // the socket file that was made for it, if any
	spares []int      // see ListenBeside
}

// Close closes the descriptor and removes the socket file that was made for it,
// unless another socket took its place. It leaves Clients alone, whom somebody
// serves by then. It is not for listeners that were
// inherited: those are closed by nobody, so that they outlive proxyd.
func (l Listener) Close() error {
	err := l.file.remove()
	for _, fd := range append([]int{l.FD}, l.spares...) {
		if e := unix.Close(fd); e != nil {
			err = errors.Join(err, fmt.Errorf("close listener %q: %w", l.Name, e))
		}
	}
	return err
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName gives ErrName where name cannot name a service or a listener. What
// passes is safe in a path, in a unit name and in LISTEN_FDNAMES.
func CheckName(name string) error {
	// $ also matches before a newline at the end only with (?m), which is not set.
	if !nameRule.MatchString(name) {
		return fmt.Errorf("bad name %q: %w", name, ErrName)
	}
	return nil
}

// socketFile remembers which file a bind made. The numbers name it only while
// the bound socket is open: it holds the inode, whose number is given to another
// file at once when the last holder is gone.
type socketFile struct {
	path     string
	dev, ino uint64
}

// madeFile looks at the file that a bind to path has just made.
func madeFile(path string) (socketFile, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return socketFile{}, fmt.Errorf("look at socket %s: %w", path, err)
	}
	return socketFile{path, st.Dev, st.Ino}, nil
}

// remove unlinks the file if it still is the one that was made. It comes before
// the socket is closed.
func (f socketFile) remove() error {
	if f.path == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(f.path, &st); err != nil || st.Dev != f.dev || st.Ino != f.ino {
		return nil // gone, or another's
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}
