package backend

import (
	"os"
	"testing"
)

// TestStoreKilledWithinCommit looks at the files between all steps of a commit:
// there is always a good copy, of the state before or of the one after.
func TestStoreKilledWithinCommit(t *testing.T) {
	for name, c := range map[string]struct {
		damage  func(*testing.T, *Store)
		pauses  int
		without bool // the runtime directory is empty, as after a reboot
	}{
		"sound":                 {func(*testing.T, *Store) {}, 4, false},
		"after a reboot":        {func(*testing.T, *Store) {}, 4, true},
		"over a damaged file":   {damageFile, 3, true}, // it does not become the last good one
		"over a missing file":   {removeFile, 3, true},
		"with no copy before":   {removeLast, 4, true},
		"with a damaged one":    {damageLast, 4, true},
		"damaged, with runtime": {damageFile, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, runtime := twoDirs(t)
			s, _, _, _ := openStore(t, dir, runtime)
			save(t, s, numbered(1))
			save(t, s, numbered(2))
			c.damage(t, s)
			n := 0
			s.between = func() {
				n++
				killed, kept := t.TempDir(), t.TempDir()
				copyDir(t, dir, killed)
				if !c.without {
					copyDir(t, runtime, kept)
				}
				next, d, found, _ := openStore(t, killed, kept)
				if !found || d.Current < 1 || (!c.without && d.Current < 2) {
					t.Errorf("killed at %d: found %t with %d", n, found, d.Current)
				}
				save(t, next, numbered(9)) // and it goes on from there
				if _, d, _, _ := openStore(t, killed, kept); d.Current != 9 {
					t.Errorf("killed at %d: goes on with %d", n, d.Current)
				}
			}
			save(t, s, numbered(3))
			if n != c.pauses {
				t.Errorf("%d steps were looked at", n)
			}
			if _, d, _, _ := openStore(t, dir, t.TempDir()); d.Current != 3 {
				t.Errorf("generation %d in the end", d.Current)
			}
		})
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func damageFile(t *testing.T, s *Store) { overwrite(t, s.path()) }
func damageLast(t *testing.T, s *Store) { overwrite(t, s.lastPath()) }
func removeFile(t *testing.T, s *Store) { remove(t, s.path()) }
func removeLast(t *testing.T, s *Store) { remove(t, s.lastPath()) }
