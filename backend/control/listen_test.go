package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                                       "its path is empty",
		"@hidden":                                "not the path of a file",
		"a\x00b":                                 "not the path of a file",
		"/" + strings.Repeat("a", maxSocketPath): "at most 107 bytes, this path has 108",
		file:                                     "not a socket is in the way",
		link:                                     "not a socket is in the way",
		dir:                                      "not a socket is in the way",
		filepath.Join(dir, "no", "sock"):         "no such file or directory",
	} {
		l, err := Listen(path)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "make control socket") {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if got, _ := os.ReadFile(file); string(got) != "dear" {
		t.Error("the file was touched")
	}
}

func TestListenReplacesOnlyTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("a live one: %v", err)
	}
	// A live one whose queue is full answers with EAGAIN.
	full := filepath.Join(t.TempDir(), "full.sock")
	fd := listenRaw(t, full)
	for range 2 {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		unix.Connect(c, &unix.SockaddrUnix{Name: full})
	}
	if _, err := Listen(full); !errors.Is(err, ErrInUse) {
		t.Errorf("a live one with a full queue: %v", err)
	}
	unix.Close(fd) // as after kill -9: the file stays
	again, err := Listen(full)
	if err != nil {
		t.Fatalf("a dead one: %v", err)
	}
	again.Close()
	if _, err := os.Lstat(full); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end the file is still there: %v", err)
	}
}

func listenRaw(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	return fd
}

// The mode is right whatever the umask says, and never wider on the way: under
// umask 0 a bind without further care makes a socket for everyone, so the mode
// at the bind is looked at as well.
func TestListenMode(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		path := filepath.Join(t.TempDir(), "c.sock")
		old := unix.Umask(umask)
		bound, err := bind(path)
		var atFirst os.FileMode
		if err == nil {
			info, serr := os.Lstat(path)
			if serr != nil {
				t.Fatal(serr)
			}
			atFirst = info.Mode().Perm()
			bound.Close()
		}
		l, lerr := Listen(path)
		unix.Umask(old)
		if err != nil || lerr != nil {
			t.Fatal(err, lerr)
		}
		if atFirst&^socketMode != 0 {
			t.Errorf("umask %03o: bound with mode %o", umask, atFirst)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != socketMode {
			t.Errorf("umask %03o: %v, %v", umask, info.Mode(), err)
		}
		l.Close()
	}
}

func TestFind(t *testing.T) {
	root, user := t.TempDir(), t.TempDir()
	place := func(dir, name string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		return SocketIn(filepath.Join(dir, name))
	}
	live := func(path string) {
		t.Helper()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	live(place(root, "web"))
	live(place(user, "web"))
	live(place(user, "api"))
	live(place(user, "-odd"))
	live(place(user, "a b"))
	dead := place(root, "dead")
	unix.Close(listenRaw(t, dead))
	place(root, "empty")
	if err := os.WriteFile(place(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	dirs := []string{root, filepath.Join(root, "missing"), user}
	var got []string
	for _, p := range Find(t.Context(), dirs) {
		s := p.Socket
		if errors.Is(p.Err, ErrNotRunning) {
			s += " not running"
		} else if p.Err != nil {
			s += p.Err.Error()
		}
		got = append(got, s)
	}
	want := []string{dead + " not running", root + "/web/control.sock", user + "/api/control.sock", user + "/web/control.sock"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	named, err := FindNamed(t.Context(), dirs, "web")
	if err != nil || len(named) != 2 || named[0].Name != "web" || named[1].Socket != want[3] {
		t.Errorf("named: %+v, %v", named, err)
	}
	if _, err := FindNamed(t.Context(), dirs, "../web"); !errors.Is(err, ErrUsage) {
		t.Errorf("a path as a name: %v", err)
	}
	env := map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"}
	if d := RuntimeDirs(func(k string) string { return env[k] }); strings.Join(d, " ") != "/run/proxyd /run/user/7/proxyd" {
		t.Errorf("runtime dirs: %q", d)
	}
	env["XDG_RUNTIME_DIR"] = "relative"
	if d := RuntimeDirs(func(k string) string { return env[k] }); len(d) != 1 {
		t.Errorf("runtime dirs: %q", d)
	}
}
