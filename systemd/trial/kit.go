package trial

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait for something that must come; nothing is measured
// by it.
const patience = 60 * time.Second

// run runs a command that must succeed, and gives what it wrote.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, code := try(t, argv...)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(argv, " "), code, out)
	}
	return out
}

// try runs a command and gives what it wrote and its exit code.
func try(t *testing.T, argv ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// asProxyd is try as the user proxyd.
func asProxyd(t *testing.T, argv ...string) (string, int) {
	t.Helper()
	return try(t, append([]string{"setpriv", "--reuid=proxyd", "--regid=proxyd", "--clear-groups", "--"}, argv...)...)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// await polls until ok; a limit far off any real time turns a hang into a
// failure.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// get asks over a new connection and gives the answer.
func get(address, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered with %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// mustAnswer wants new connections answered by release.
func mustAnswer(t *testing.T, address, release string) {
	t.Helper()
	for range 10 {
		got, err := get(address, "/")
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(got, " "); first != release {
			t.Fatalf("a new connection was answered by %q, not %s", got, release)
		}
	}
}

// status is what of proxyctl's a test looks at.
type status struct {
	Service   string
	State     string
	Current   uint64
	Previous  uint64
	Listeners []struct {
		Path   string
		Reason string `json:"path_reason"`
	}
	Generations []generation
}

type generation struct {
	ID       uint64
	Release  string
	State    string
	InFlight uint64 `json:"in_flight"`
	PID      int
	Unit     string
	Reason   string
	Notice   string
}

// statusOf gives the state of a service; the error is for a proxyd that does
// not answer.
func statusOf(t *testing.T, name string) (status, error) {
	t.Helper()
	var st status
	out, code := try(t, "proxyctl", "-s", name, "status", "-o", "json")
	if code != 0 {
		return st, fmt.Errorf("exit code %d: %s", code, out)
	}
	err := json.Unmarshal([]byte(out), &st)
	return st, err
}

func mustStatus(t *testing.T, name string) status {
	t.Helper()
	st, err := statusOf(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (s status) generation(id uint64) generation {
	for _, g := range s.Generations {
		if g.ID == id {
			return g
		}
	}
	return generation{}
}

func (s status) current() generation { return s.generation(s.Current) }

// pids gives the processes of all units that match, by unit.
func pids(t *testing.T, pattern string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(run(t, "systemctl", "list-units", "--plain", "--no-legend", "--state=active", pattern)) {
		name := strings.Fields(line)[0]
		found[name] = strings.TrimSpace(run(t, "systemctl", "show", "-P", "MainPID", name))
	}
	return found
}

// stoppedProcess tells whether a process stands still (SIGSTOP), by proc(5).
func stoppedProcess(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "T")
}
