package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed8fae2174/proxyd/systemd/units"
)

// places is where things are put, for the machine or for a user.
type places struct {
	user     bool
	programs string // the directory of proxyd and proxyctl
	from     string // where they are copied from; empty: they are in place
	units    string
	config   string
	state    string
	runtime  string
	notes    string // of what was installed
}

// placesFor gives the places. The programs are those beside this one.
func placesFor(user bool, prefix string) (places, error) {
	exe, err := os.Executable()
	if err != nil {
		return places{}, fmt.Errorf("find this program: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return places{}, fmt.Errorf("find this program: %w", err)
	}
	here := filepath.Dir(exe)
	if !user {
		p := places{
			programs: filepath.Join(prefix, "bin"), from: here, units: "/etc/systemd/system",
			config: "/etc/proxyd", state: "/var/lib/proxyd", runtime: "/run/proxyd", notes: "/var/lib/proxyd/installed.json",
		}
		if here == p.programs || here == "/usr/bin" {
			p.programs, p.from = here, ""
		}
		return p, nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return places{}, fmt.Errorf("find your config directory: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return places{}, fmt.Errorf("find your home directory: %w", err)
	}
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		state = filepath.Join(home, ".local/state")
	}
	return places{
		user: true, programs: here, units: filepath.Join(config, "systemd/user"), config: filepath.Join(config, "proxyd"),
		state:   filepath.Join(config, "proxyd"), // StateDirectory= of a user's manager, before systemd 254
		runtime: filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "proxyd"), notes: filepath.Join(state, "proxyd/installed.json"),
	}, nil
}

// packaged gives the template that a package of the system has put in place under
// this name, or "". Its units may be anything: nobody is to take them for
// generations by chance.
func (p places) packaged(template string) string {
	of := "system"
	if p.user {
		of = "user"
	}
	for _, dir := range []string{"/usr/lib/systemd", "/lib/systemd"} {
		path := filepath.Join(dir, of, template+"@.service")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// rulesPath is where polkit finds the rule of all services.
const rulesPath = "/etc/polkit-1/rules.d/50-proxyd.rules"

// file is one to be written: a text, or a copy of another file.
type file struct {
	path, text, from string
}

// shared gives the files that all services have in common; generations are their
// units, as units.Rules takes them.
func (p places) shared(generations []string) ([]file, error) {
	var files []file
	if p.from != "" {
		for _, name := range []string{"proxyd", "proxyctl"} {
			from := filepath.Join(p.from, name)
			if _, err := os.Stat(from); err != nil {
				return nil, fmt.Errorf("find %s beside this program: %w", name, err)
			}
			files = append(files, file{path: filepath.Join(p.programs, name), from: from})
		}
	}
	files = append(files, file{path: filepath.Join(p.units, "proxyd@.socket"), text: units.Socket()})
	if p.user {
		return append(files, file{path: filepath.Join(p.units, "proxyd@.service"), text: units.UserService(p.programs)}), nil
	}
	return append(files,
		file{path: filepath.Join(p.units, "proxyd@.service"), text: units.Service(p.programs)},
		file{path: "/etc/sysusers.d/proxyd.conf", text: units.Sysusers()},
		file{path: "/etc/tmpfiles.d/proxyd.conf", text: units.Tmpfiles()},
		file{path: rulesPath, text: units.Rules(generations)},
	), nil
}

// write puts a file in place, by rename, so that a program that runs is not
// written to and nobody reads half of one.
func (f file) write() error {
	mode := fs.FileMode(0o644)
	var source io.Reader = strings.NewReader(f.text)
	if f.from != "" {
		mode = 0o755
		in, err := os.Open(f.from)
		if err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
		defer in.Close()
		source = in
	} else if now, err := os.ReadFile(f.path); err == nil && string(now) == f.text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".proxyd-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	_, err = io.Copy(tmp, source)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", f.path, err), os.Remove(tmp.Name()))
	}
	return nil
}

// makesUser says that the user proxyd is still to be made. Where it or its group was
// there before it is somebody else's to remove.
func (p places) makesUser() bool {
	_, noUser := user.Lookup("proxyd")
	_, noGroup := user.LookupGroup("proxyd")
	return !p.user && noUser != nil && noGroup != nil
}

// settle has systemd take in what was written.
func (p places) settle() error {
	if !p.user {
		for _, argv := range [][]string{
			{"systemd-sysusers", "/etc/sysusers.d/proxyd.conf"},
			{"systemd-tmpfiles", "--create", "/etc/tmpfiles.d/proxyd.conf"},
		} {
			if err := runTool(argv...); err != nil {
				return err
			}
		}
	}
	return p.systemctl("daemon-reload")
}

func (p places) systemctl(args ...string) error {
	_, err := p.ask(args...)
	return err
}

// ask is systemctl with what it said, trimmed.
func (p places) ask(args ...string) (string, error) {
	return askTool(append(strings.Fields(p.ctl()), args...)...)
}

// ctl is how systemctl is called.
func (p places) ctl() string {
	if p.user {
		return "systemctl --user"
	}
	return "systemctl"
}

func runTool(argv ...string) error {
	_, err := askTool(argv...)
	return err
}

func askTool(argv ...string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(out.String()+said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// notes are what install did, for uninstall.
type notes struct {
	Files    []string             `json:"files"` // in common
	Dirs     []string             `json:"dirs"`  // that were not there, the innermost first
	Services map[string]installed `json:"services"`
	// Purgeable names services that are uninstalled, and whose config, state and
	// history are left for --purge.
	Purgeable []string `json:"purgeable,omitempty"`
	User      bool     `json:"user,omitempty"` // install has made the user proxyd, and its group
}

type installed struct {
	Units   []string  `json:"units"` // what generations are called, see units.Rules
	Left    []started `json:"left"`  // those of an earlier install that are called otherwise
	Driver  string    `json:"driver"`
	Listens bool      `json:"listens"` // by a proxyd@NAME.socket of install's
	Files   []string  `json:"files"`
	Dirs    []string  `json:"dirs"`
}

func readNotes(path string) (*notes, error) {
	n := &notes{Services: map[string]installed{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		err = json.Unmarshal(b, n)
	}
	if err != nil {
		return nil, fmt.Errorf("read notes of what is installed: %w", err)
	}
	if n.Services == nil {
		n.Services = map[string]installed{}
	}
	return n, nil
}

func (n *notes) write(path string) error {
	b, err := json.MarshalIndent(n, "", "\t")
	if err != nil {
		return err
	}
	return file{path: path, text: string(b) + "\n"}.write()
}

// noteFile notes a file that is to be written, and which directories above it
// are to be made.
func noteFile(files, dirs *[]string, path string) {
	if !slices.Contains(*files, path) {
		*files = append(*files, path)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return
		}
		if !slices.Contains(*dirs, dir) {
			*dirs = append(*dirs, dir)
		}
	}
}

// userOf gives the service other than name whose generations are units of a
// template, or "".
func (n *notes) userOf(template, name string) string {
	for other, s := range n.Services {
		if other != name && s.Driver == "systemd" && slices.Contains(templatesOf(s.allowed()), template) {
			return other
		}
	}
	return ""
}

// generations gives the units that proxyd may start.
func (n *notes) generations() []string {
	var list []string
	for _, s := range n.Services {
		if s.Driver == "systemd" {
			list = append(list, s.allowed()...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
