package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// twoDirs gives a state and a runtime directory.
func twoDirs(t *testing.T) (dir, runtime string) { return t.TempDir(), t.TempDir() }

func openStore(t *testing.T, dir, runtime string) (*Store, Durable, bool, []string) {
	t.Helper()
	s, d, found, notes, err := OpenStore(dir, runtime)
	if err != nil {
		t.Fatal(err)
	}
	return s, d, found, notes
}

func save(t *testing.T, s *Store, d Durable) {
	t.Helper()
	if memory, err := s.Save(d); err != nil || !memory {
		t.Fatalf("save: memory %t, %v", memory, err)
	}
}

func numbered(current uint64) Durable {
	return Durable{Service: "web", Next: current + 1, Current: current, Generations: []DurableGeneration{
		{ID: current, Release: "v<1> & \u2028", State: Current, Origin: "first", Plan: json.RawMessage(`{"argv":["<a>"]}`), Identity: json.RawMessage(`1`)},
	}}
}

func TestStoreGivesBackWhatWasSaved(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, found, notes := openStore(t, dir, runtime)
	if found || len(notes) > 0 {
		t.Errorf("found %t, notes %v where nothing is", found, notes)
	}
	save(t, s, numbered(1))
	save(t, s, numbered(2))
	_, d, found, notes := openStore(t, dir, runtime)
	if !found || len(notes) > 0 || d.Current != 2 || d.Generations[0].Release != "v<1> & \u2028" {
		t.Errorf("found %t, notes %v, %+v", found, notes, d)
	}
	var plan struct{ Argv []string }
	if err := json.Unmarshal(d.Generations[0].Plan, &plan); err != nil || plan.Argv[0] != "<a>" {
		t.Errorf("plan %s: %v", d.Generations[0].Plan, err)
	}
	for _, path := range []string{s.path(), s.lastPath(), s.runtimePath()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// TestStoreDamaged damages the file in force in every way: the copy before it,
// or the one in the runtime directory, is found.
func TestStoreDamaged(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, numbered(1))
	save(t, s, numbered(2))
	good, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string][]byte{"empty": {}, "zeros": make([]byte, len(good)), "garbage": []byte("{}"), "null": []byte("null")}
	for i := range len(good) - 1 { // without its newline it is whole
		damaged["truncated at "+string(rune(i))] = good[:i]
		zeros := bytes.Clone(good)
		clear(zeros[i:])
		damaged["zeros from "+string(rune(i))] = zeros
	}
	empty := t.TempDir()
	for name, b := range damaged {
		if err := os.WriteFile(s.path(), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, d, found, notes := openStore(t, dir, runtime); !found || d.Current != 2 || len(notes) != 1 || !strings.Contains(notes[0], s.path()) {
			t.Errorf("%s: found %t with %d, notes %v", name, found, d.Current, notes)
		}
		if _, d, found, _ := openStore(t, dir, empty); !found || d.Current != 1 {
			t.Errorf("%s, without the runtime directory: found %t with %d", name, found, d.Current)
		}
	}
}

// TestStoreFlippedBits flips every bit: what is then read is what was written,
// or the copy is passed over.
func TestStoreFlippedBits(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, Durable{Service: "web", Next: 2, Current: 1})
	save(t, s, Durable{Service: "web", Next: 3, Current: 2})
	_, want, _, _ := openStore(t, dir, runtime)
	last, err := os.ReadFile(s.lastPath())
	if err != nil {
		t.Fatal(err)
	}
	for i := range last {
		for bit := range 8 {
			flipped := bytes.Clone(last)
			flipped[i] ^= 1 << bit
			if err := os.WriteFile(s.lastPath(), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			_, d, found, _, err := OpenStore(dir, runtime)
			if err != nil || !found || !reflect.DeepEqual(d, want) {
				t.Fatalf("bit %d of byte %d (%q): found %t with %d, %v", bit, i, flipped, found, d.Current, err)
			}
		}
	}
}

// TestStoreFlippedBitsAlone: the same where there is no other copy; what is
// damaged is never taken for a state.
func TestStoreFlippedBitsAlone(t *testing.T) {
	dir, none := twoDirs(t)
	s, _, _, _ := openStore(t, dir, none)
	save(t, s, numbered(1))
	if err := os.Remove(s.runtimePath()); err != nil {
		t.Fatal(err)
	}
	_, want, _, _ := openStore(t, dir, none)
	good, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(good) - 1 {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		if err := os.WriteFile(s.path(), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		_, d, found, notes := openStore(t, dir, none)
		if found && !reflect.DeepEqual(d, want) || !found && len(notes) != 1 {
			t.Fatalf("byte %d (%q): found %t, notes %v, %+v", i, flipped, found, notes, d)
		}
	}
}

func TestStoreNewerSchema(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, numbered(1))
	newer := []byte(`{"schema":2,"revision":9,"sha256":"of another kind","state":{"people":[]}}`)
	if err := os.WriteFile(s.path(), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, _, _, err := OpenStore(dir, runtime)
	if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), s.path()) || !strings.Contains(err.Error(), "schema 2") {
		t.Errorf("error %v", err)
	}
	if b, err := os.ReadFile(s.path()); err != nil || !bytes.Equal(b, newer) {
		t.Errorf("the newer file was changed: %q, %v", b, err)
	}
}

func TestStoreNewestCopyCounts(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, numbered(1))
	again := takesNoMore(t, dir)
	memory, err := s.Save(numbered(2))
	if err == nil || !memory {
		t.Errorf("memory %t, %v", memory, err)
	}
	again()
	s, d, _, _ := openStore(t, dir, runtime)
	if d.Current != 2 {
		t.Errorf("generation %d, not that of the runtime directory", d.Current)
	}
	again = takesNoMore(t, runtime)
	if _, err := s.Save(numbered(3)); err != nil { // the disk is enough
		t.Error(err)
	}
	again()
	if _, d, _, _ := openStore(t, dir, runtime); d.Current != 3 {
		t.Errorf("generation %d, not that of the disk", d.Current)
	}
	defer takesNoMore(t, dir)()
	defer takesNoMore(t, runtime)()
	if memory, err := s.Save(numbered(4)); err == nil || memory {
		t.Errorf("nothing takes it: memory %t, %v", memory, err)
	}
}

func TestStoreAbandoned(t *testing.T) {
	dir, runtime := twoDirs(t)
	s, _, _, _ := openStore(t, dir, runtime)
	save(t, s, numbered(1))
	p, err := s.Prepare(numbered(2))
	if err != nil {
		t.Fatal(err)
	}
	if _, d, _, _ := openStore(t, dir, runtime); d.Current != 1 {
		t.Errorf("generation %d is in force before the commit", d.Current)
	}
	p.Abandon()
	if _, d, _, _ := openStore(t, dir, runtime); d.Current != 1 {
		t.Errorf("generation %d is in force after all", d.Current)
	}
	if left := filesIn(t, dir); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
}

func TestStoreRemovesWhatAKillLeft(t *testing.T) {
	dir, runtime := twoDirs(t)
	first, _, _, _ := openStore(t, dir, runtime)
	save(t, first, numbered(1))
	for range 3 { // prepared, and then proxyd is killed
		p, err := first.Prepare(numbered(2))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Abandon()
	}
	second, _, _, _ := openStore(t, dir, runtime)
	if left := filesIn(t, dir); len(left) != 4 {
		t.Errorf("reading removed something: %v", left)
	}
	save(t, second, numbered(3))
	if left := filesIn(t, dir); len(left) != 2 {
		t.Errorf("left over: %v", left)
	}
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e.Name()))
	}
	return names
}

// What an older proxyd wrote is read, and what a newer one wrote of the same schema
// beside what is known here is passed over.
func TestStoreReadsWhatOthersOfItsSchemaWrote(t *testing.T) {
	const older = `{"service":"web","next_generation":3,"current":2,"previous":1,"generations":[` +
		`{"id":1,"release":"v1","state":"draining","origin":"first"},` +
		`{"id":2,"release":"v2","state":"current","origin":"promote","identity":{"unit":"web@2.service"}}]}`
	for name, state := range map[string]string{
		"older": older,
		"newer": strings.Replace(older, `"origin":"first"`, `"origin":"first","colour":"blue"`, 1),
	} {
		dir := t.TempDir()
		text := fmt.Sprintf(`{"schema":1,"revision":7,"sha256":%q,"state":%s}`, sumOf(7, []byte(state)), state)
		if err := os.WriteFile(filepath.Join(dir, stateName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, d, found, notes, err := OpenStore(dir, dir)
		if err != nil || !found || len(notes) > 0 || d.Current != 2 || len(d.Generations) != 2 {
			t.Fatalf("%s: %+v, %v, %v, %v", name, d, found, notes, err)
		}
		m := NewMachine(Policy{Probation: time.Second}, d)
		if m.gens[2].probation || m.gens[1].stopWhenDrained {
			t.Errorf("%s: of what was not written it is %s", name, describeState(m))
		}
	}
}
