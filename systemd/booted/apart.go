package booted

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// watched are the directories of this machine's in which a package's tests must
// not have touched anything when they have ended.
var watched = slices.DeleteFunc([]string{"/etc", "/opt", "/run", "/srv", "/tmp", "/usr", "/var"}, func(dir string) bool {
	info, err := os.Lstat(dir)
	return err != nil || !info.IsDir()
})

// kernelSettings are what a booting systemd would write, and could, did it not
// find them read-only.
var kernelSettings = []string{
	"/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/kernel/pid_max", "/proc/sys/kernel/hostname",
	"/proc/sys/fs/protected_fifos", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/printk",
}

// apartName is the environment variable that says that a process of tests runs
// apart: it holds the number of the descriptor of what apart made, and withMe in
// the processes that it starts, whose touches are its own.
const (
	apartName = "BOOTED_APART"
	withMe    = "started by one"
)

// apart executes the test binary once more in a mount namespace of its own, where
// each of the watched directories is an overlay with an empty upper layer. What
// the tests touch is in these layers then, and nothing else is, however busy this
// machine is; and what they should do to it they only do to the layers. It returns
// only with an error. See mount_namespaces(7) and Documentation/filesystems/
// overlayfs.rst.
func apart() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	// What go test and go build write is not the harness's doing.
	keep := []string{filepath.Dir(exe), moduleOf(cwd), os.TempDir()}
	if out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOTELEMETRYDIR").Output(); err == nil {
		keep = append(keep, strings.Fields(string(out))...)
	}
	// To leave the namespace is the calling thread's alone, and execve(2) makes
	// that thread the process.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lowers, err := hold(watched)
	if err != nil {
		return err
	}
	kept, err := hold(slices.DeleteFunc(keep, func(dir string) bool { return !inWatched(dir) }))
	if err != nil {
		return err
	}
	// Out of sight once /tmp is mounted anew, and with a descriptor still there.
	if err := unix.Mount("apart", "/tmp", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	layers, err := unix.Open("/tmp", unix.O_RDONLY|unix.O_DIRECTORY, 0) // to be inherited
	if err != nil {
		return fmt.Errorf("open layers: %w", err)
	}
	for _, dir := range watched {
		if err := overlay(dir, fdPath(lowers[dir]), fdPath(layers)+dir); err != nil {
			return fmt.Errorf("lay over %s: %w", dir, err)
		}
	}
	for dir, fd := range kept {
		if err := unix.Mount(fdPath(fd), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
	}
	if err := os.Chdir(cwd); err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, append(os.Environ(), apartName+"="+strconv.Itoa(layers)))
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// hold opens directories, so that they can be named when they are out of sight.
func hold(dirs []string) (map[string]int, error) {
	held := map[string]int{}
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(watched, dir) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
		held[dir] = fd
	}
	return held, nil
}

// overlay mounts lower at dir under an empty layer, which looks like it.
func overlay(dir, lower, layer string) error {
	var was unix.Stat_t
	if err := unix.Stat(dir, &was); err != nil {
		return err
	}
	upper, work := layer+"/upper", layer+"/work"
	for _, made := range []string{upper, work} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.Chown(upper, int(was.Uid), int(was.Gid)), unix.Chmod(upper, was.Mode&0o7777)); err != nil {
		return err
	}
	return unix.Mount("apart", dir, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
}

// inWatched tells whether dir is below one of the watched directories.
func inWatched(dir string) bool {
	return slices.ContainsFunc(watched, func(w string) bool { return strings.HasPrefix(dir, w+"/") })
}

// moduleOf gives the directory of the module that dir is in.
func moduleOf(dir string) string {
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	return dir
}

// touched lists what is in the layers: what is new, was changed or is gone.
func touched(layers int) (found []string, err error) {
	for _, dir := range watched {
		upper := fdPath(layers) + dir + "/upper"
		err = errors.Join(err, filepath.WalkDir(upper, func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == upper {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			path := dir + strings.TrimPrefix(name, upper)
			link, _ := os.Readlink(name)
			if s, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&fs.ModeCharDevice != 0 && s.Rdev == 0 {
				found = append(found, path+" is gone") // a whiteout
				return nil
			}
			found = append(found, fmt.Sprint(path, " ", info.Mode(), " ", info.Size(), " ", info.ModTime(), " ", link))
			return nil
		}))
	}
	return found, err
}

// surroundings gives, line by line, what else of this machine must be as it was:
// its mounts, as they are seen here, and some settings of its kernel.
func surroundings() (lines []string, err error) {
	for _, name := range append([]string{"/proc/self/mountinfo"}, kernelSettings...) {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			lines = append(lines, name+": "+strings.TrimSpace(line))
		}
	}
	return lines, nil
}
