package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed8fae2174/proxyd"

// imports gives what each package of the module imports from it, tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			ImportPath    string
			Imports, Deps []string
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		found[name] = []string{}
		for _, i := range p.Deps {
			if rest, ok := strings.CutPrefix(i, module+"/"); ok {
				found[name] = append(found[name], rest)
			}
		}
	}
	return found
}

// The packages beside each other know nothing of each other; the daemon alone
// brings them together, and proxyctl knows the control protocol only, and
// the text of the units that it installs.
func TestImportsGoInOneDirection(t *testing.T) {
	found := imports(t)
	for name, deps := range found {
		allowed := []string{}
		switch {
		case name == "cmd/proxyd":
			continue
		case name == "cmd/proxyctl":
			allowed = []string{"backend/control", "systemd/units"} // the latter is nothing but text
		case name == "systemd/trial":
			allowed = []string{"systemd/booted"} // both are there for tests only
		case strings.HasPrefix(name, "cmd/"):
			continue
		}
		for _, dep := range deps {
			if !slices.Contains(allowed, dep) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
	if len(found) < 5 {
		t.Fatalf("only %d packages were found", len(found))
	}
}
