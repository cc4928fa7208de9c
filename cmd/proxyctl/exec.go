package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/backend/control"
)

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// fetchWithin bounds how long a proxyd is waited for that is just started again.
const fetchWithin = 30 * time.Second

func (a *app) exec() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec -- COMMAND [ARG...]",
		Short: "Run COMMAND as a generation's main process, with its sockets",
		Long: `For the ExecStart= of the template unit that generations are instances of:

    ExecStart=proxyctl exec --service web -- /srv/web/{release}/web

Fetches the listening sockets of this generation from proxyd, puts them at
descriptor 3 and on with LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES, as systemd
does, and becomes COMMAND: its process, its Type=, its signals are the unit's.
proxyd decides by the unit that this process is in which generation asks.

COMMAND also finds PROXYD_SERVICE, PROXYD_GENERATION and PROXYD_RELEASE, and
where it binds by itself PORT and ADDRESS, also PORT_NAME and ADDRESS_NAME for
each listener; no other variable is taken from proxyd. NOTIFY_SOCKET and WATCHDOG_USEC stay
systemd's. {release} and {generation} in COMMAND are replaced; no shell is
involved, and other braces stay.`,
		Example: `  proxyctl exec --service web -- /srv/web/{release}/web --quiet`,
	}
	c = a.verb(c, 1<<20, a.become)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 || args[0] == "" {
			return usage("exec: say which COMMAND to become, after --")
		}
		return nil
	}
	c.Flags().SetInterspersed(false) // what is COMMAND's stays COMMAND's
	return c
}

// become fetches the sockets and executes argv. It returns only with an error.
func (a *app) become(ctx context.Context, argv []string) error {
	if err := reserve(firstFD + control.MaxHandover); err != nil {
		return err
	}
	h, err := a.fetch(ctx)
	if err != nil {
		return err
	}
	if err := checkHandover(h); err != nil {
		return fmt.Errorf("take proxyd's answer: %w", err)
	}
	argv = fill(argv, h)
	path, err := exec.LookPath(argv[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return &control.Error{Code: control.Failed, Message: fmt.Sprintf("execute command: %v", err)}
	}
	for i, fd := range h.FDs {
		if err := unix.Dup3(fd, firstFD+i, 0); err != nil {
			return fmt.Errorf("place socket %q at descriptor %d: %w", h.Names[i], firstFD+i, err)
		}
	}
	err = unix.Exec(path, argv, environment(a.environ, h))
	return &control.Error{Code: control.Failed, Message: fmt.Sprintf("execute %s: %v", path, err)}
}

// reserve sees to it that nothing which is opened from here on, by the runtime
// least of all, has a number below most, where the sockets are to be: they are
// held by placeholders that end with the exec.
func reserve(most int) error {
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("reserve descriptors: %w", err)
		}
		if fd >= most {
			return unix.Close(fd)
		}
	}
}

// fetch asks proxyd, and waits for one that is just started again.
func (a *app) fetch(ctx context.Context) (control.Handover, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		client, err := a.client(ctx)
		var h control.Handover
		if err == nil {
			h, err = client.Handover(ctx)
		}
		if !errors.Is(err, control.ErrNotRunning) {
			return h, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return h, err
		}
	}
}

// settable are the names of the variables that proxyd may set in a generation.
var settable = regexp.MustCompile(`^(PROXYD_[A-Z0-9_]+|(PORT|ADDRESS)(_[A-Z0-9_]+)?)$`)

// checkHandover refuses an answer that could change what the generation runs. Its
// unit has a user and rights of its own, which whoever takes over proxyd is not to
// get: not by a path for a release, nor by a variable such as LD_PRELOAD.
func checkHandover(h control.Handover) error {
	if h.Generation == 0 {
		return errors.New("generations are numbered from 1, got 0")
	}
	if err := control.CheckRelease(h.Release); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(h.Environment)) {
		if !settable.MatchString(name) {
			return fmt.Errorf("variable %q is not one that proxyd may set", name)
		}
	}
	return nil
}

// fill puts the generation's number and release into a command.
func fill(argv []string, h control.Handover) []string {
	r := strings.NewReplacer("{release}", h.Release, "{generation}", strconv.FormatUint(h.Generation, 10))
	filled := make([]string, len(argv))
	for i, arg := range argv {
		filled[i] = r.Replace(arg)
	}
	return filled
}

// environment is what systemd gave, with the generation's own variables over it
// and the sockets as sd_listen_fds(3) finds them.
func environment(given []string, h control.Handover) []string {
	ours := map[string]string{}
	for k, v := range h.Environment {
		ours[k] = v
	}
	for _, k := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		given = slices.DeleteFunc(slices.Clone(given), func(kv string) bool { return strings.HasPrefix(kv, k+"=") })
	}
	if len(h.FDs) > 0 {
		ours["LISTEN_PID"] = strconv.Itoa(os.Getpid())
		ours["LISTEN_FDS"] = strconv.Itoa(len(h.FDs))
		ours["LISTEN_FDNAMES"] = strings.Join(h.Names, ":")
	}
	env := slices.DeleteFunc(slices.Clone(given), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		_, set := ours[k]
		return set
	})
	for k, v := range ours {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}
