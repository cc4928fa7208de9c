package trial

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// A trial that is written here for package load or failure is one of its tests.
func TestEachTrialIsRun(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range []string{"load/load_test.go", "failure/failure_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	found := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range regexp.MustCompile(`(?m)^func ([A-Z]\w*)\(t \*testing\.T\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			found++
			if !strings.Contains(tests.String(), "func Test"+f[1]+"(t *testing.T) ") || !strings.Contains(tests.String(), "{ trial."+f[1]+"(t) }") {
				t.Errorf("%s of %s is no test of another package", f[1], name)
			}
		}
	}
	if found == 0 {
		t.Error("there are no trials")
	}
}
