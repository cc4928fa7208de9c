package process

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchName as argv[0] says that this is the launch stub.
const launchName = "proxyd-launch"

// request is what the stub is to run. Bytes, because JSON strings must be UTF-8
// and arguments need not be.
type request struct {
	Argv  [][]byte `json:"argv"`
	Env   [][]byte `json:"env"`
	Dir   []byte   `json:"dir"`
	Names []string `json:"names"` // of the descriptors from 3 on
}

// failure is what the stub answers when it could not exec.
type failure struct {
	Step  string `json:"step"`
	Errno int    `json:"errno"`
	Hint  string `json:"hint"`
}

// aboutToExec is the first byte on the status pipe: an end without it means that
// the stub died before it got there.
const aboutToExec = 'x'

// LaunchIfAsked must be the first thing that main does. In a process that Start
// or Run has started, it becomes the program that is to run and does not return;
// in any other it does nothing.
func LaunchIfAsked() {
	if len(os.Args) != 2 || os.Args[0] != launchName {
		return
	}
	files, err := strconv.Atoi(os.Args[1])
	if err != nil || files < 0 {
		return
	}
	launchStub(files)
	os.Exit(127) // the shell's code for a command that was not run
}

// launchStub waits for the request and execs. It finds its input and output at
// 0 to 2, the files to hand over from 3 on, then the pipes. It returns if there
// is no request, since proxyd has gone, or when the exec failed and it has said
// so.
func launchStub(files int) {
	runtime.LockOSThread() // the signal mask is the thread's
	requests, status := fd(3+files), fd(4+files)
	// Nothing but what is handed over may get into the program.
	if unix.CloseRange(uint(requests), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) != nil {
		unix.CloseOnExec(int(requests))
		unix.CloseOnExec(int(status))
	}
	var r request
	if err := json.NewDecoder(requests).Decode(&r); err != nil {
		return
	}
	f := become(r, status)
	b, _ := json.Marshal(f)
	_, _ = status.Write(b)
}

// become execs what r says, or gives what went wrong.
func become(r request, status fd) failure {
	argv, given := texts(r.Argv), texts(r.Env)
	env := make([]string, 0, len(given)+4)
	for _, v := range given {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", markMain:
		default:
			env = append(env, v)
		}
	}
	pid := strconv.Itoa(os.Getpid())
	env = append(env, markMain+"="+pid)
	if n := len(r.Names); n > 0 {
		env = append(env, "LISTEN_PID="+pid, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_FDNAMES="+strings.Join(r.Names, ":"))
	}
	if dir := string(r.Dir); dir != "" {
		if err := unix.Chdir(dir); err != nil {
			return failure{Step: "change to directory " + dir, Errno: errno(err)}
		}
	}
	_, _ = status.Write([]byte{aboutToExec})
	defaultSignals()
	path, err := execvp(argv, env)
	f := failure{Errno: errno(err)}
	switch info, statErr := os.Stat(path); {
	case statErr != nil:
	case info.IsDir():
		f.Hint = "it is a directory"
	case errors.Is(err, unix.ENOENT):
		f.Hint = "the file is there, but its interpreter is not"
	case errors.Is(err, unix.ENOEXEC):
		f.Hint = "it is neither a program nor a script that begins with #!"
	case errors.Is(err, unix.EACCES) && info.Mode()&0o111 == 0:
		f.Hint = "it may not be executed: mode " + info.Mode().String()
	}
	return f
}

// execvp is execvp(3): a name with a slash is a path, any other is looked for in
// the PATH of env. Unlike there, a file that is no program is not handed to a
// shell. It gives the path that failed.
func execvp(argv, env []string) (path string, err error) {
	name := argv[0]
	if strings.Contains(name, "/") {
		return name, unix.Exec(name, argv, env)
	}
	search := "/usr/local/bin:/usr/bin:/bin"
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			search = p
			break
		}
	}
	found, worst := "", error(unix.ENOENT)
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := unix.Exec(path, argv, env)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.EACCES):
			if found == "" {
				found, worst = path, err
			}
		default:
			return path, err
		}
	}
	return found, worst
}

// defaultSignals gives the program every signal at its default and none blocked.
// execve(2) resets what is caught, but keeps what is ignored: systemd starts us
// with SIGPIPE ignored, nohup with SIGHUP.
func defaultSignals() {
	var action [8]uint64 // struct sigaction of the kernel: all zero is SIG_DFL
	for s := 1; s <= 64; s++ {
		if s != int(unix.SIGKILL) && s != int(unix.SIGSTOP) {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		}
	}
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
}

func errno(err error) int {
	var e syscall.Errno
	if errors.As(err, &e) {
		return int(e)
	}
	return int(unix.EINVAL)
}

func texts(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

// fd reads and writes a raw descriptor, without the runtime's poller.
type fd int

func (f fd) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f fd) Write(p []byte) (int, error) {
	for {
		n, err := unix.Write(int(f), p)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}
