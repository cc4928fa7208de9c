package backend

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// schema is that of the state file. A file of a newer one is refused, because
// what it says of running generations could be misread.
const schema = 1

const stateName = "state.json"

// The errors of a Store, for errors.Is.
var (
	ErrNewerSchema = errors.New("written by a newer proxyd")
	errDamaged     = errors.New("damaged")
)

// envelope is the state file: the sum is over the schema, the revision and the
// bytes of State as they stand.
type envelope struct {
	Schema   int             `json:"schema"`
	Revision uint64          `json:"revision"`
	Sum      string          `json:"sha256"`
	State    json.RawMessage `json:"state"`
}

// Store keeps the durable state in three places: DIR/state.json, the copy
// before it as DIR/state.json.last, and a copy in the runtime directory, which
// is usually in memory, so that a full or broken disk does not make proxyd
// forget what runs. Of the readable ones the newest counts.
type Store struct {
	dir, runtimeDir string
	revision        uint64
	swept           bool
	between         func() // where set, called between the steps of Commit, by tests
}

// OpenStore reads the state. Notes tell of copies that were passed over, found
// says whether any was readable. A copy of a newer schema is an error that
// names the file. Neither directory is created.
func OpenStore(dir, runtimeDir string) (s *Store, d Durable, found bool, notes []string, err error) {
	s = &Store{dir: dir, runtimeDir: runtimeDir}
	for _, path := range []string{s.path(), s.lastPath(), s.runtimePath()} {
		env, err := readEnvelope(path)
		var state Durable
		if err == nil {
			if err = json.Unmarshal(env.State, &state); err != nil {
				err = fmt.Errorf("%w: %w", errDamaged, err)
			}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, ErrNewerSchema):
			return nil, Durable{}, false, notes, fmt.Errorf("read state %s: %w", path, err)
		case err != nil:
			notes = append(notes, fmt.Sprintf("%s: %v", path, err))
		case !found || env.Revision > s.revision:
			s.revision, d, found = env.Revision, state, true
		}
	}
	return s, d, found, notes, nil
}

func (s *Store) path() string        { return filepath.Join(s.dir, stateName) }
func (s *Store) lastPath() string    { return s.path() + ".last" }
func (s *Store) runtimePath() string { return filepath.Join(s.runtimeDir, stateName) }

func readEnvelope(path string) (envelope, error) {
	var env envelope
	b, err := os.ReadFile(path)
	if err != nil {
		return env, err
	}
	if err := json.Unmarshal(b, &env); err != nil {
		return env, fmt.Errorf("%w: %w", errDamaged, err)
	}
	matches := env.Sum == sumOf(env.Revision, env.State)
	if env.Schema > schema && !matches { // else it is one of ours whose number was damaged
		return env, fmt.Errorf("%w (schema %d, this proxyd knows %d)", ErrNewerSchema, env.Schema, schema)
	}
	if env.Schema != schema || !matches {
		return env, fmt.Errorf("%w: its checksum does not match", errDamaged)
	}
	return env, nil
}

// sumOf is the sum of a state of this schema.
func sumOf(revision uint64, state []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d ", schema, revision)
	h.Write(state)
	return hex.EncodeToString(h.Sum(nil))
}

// Pending is a state that is on disk beside the one in force. Exactly one of
// Commit and Abandon ends it.
type Pending struct {
	store *Store
	file  *renameio.PendingFile
	bytes []byte
}

// Prepare writes d to a temporary file in the state directory and fsyncs it, so
// that a full disk shows before anything was changed.
func (s *Store) Prepare(d Durable) (*Pending, error) {
	s.sweep()
	b, err := s.encode(d)
	if err != nil {
		return nil, err
	}
	f, err := renameio.NewPendingFile(s.path(), renameio.WithTempDir(s.dir), renameio.WithPermissions(0o600))
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Cleanup()
		return nil, fmt.Errorf("write state: %w", err)
	}
	return &Pending{store: s, file: f, bytes: b}, nil
}

// sweep removes, once, the temporary files of a proxyd that was killed while it
// wrote. Not at opening: `proxyd check` only reads.
func (s *Store) sweep() {
	if s.swept {
		return
	}
	s.swept = true
	for _, dir := range []string{s.dir, s.runtimeDir} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "."+stateName) {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

func (s *Store) encode(d Durable) ([]byte, error) {
	s.revision++
	state, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	b, err := json.Marshal(envelope{Schema: schema, Revision: s.revision, Sum: sumOf(s.revision, state), State: state})
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(b, '\n'), nil
}

// Commit renames the pending state into place and fsyncs the directory, which
// renameio leaves to its callers. The copy in the runtime directory follows; as
// it is the lesser one, its failure is no error.
func (p *Pending) Commit() error {
	s := p.store
	if _, err := readEnvelope(s.path()); err == nil { // only a good one is kept as the last
		_ = os.Remove(s.lastPath())
		s.pause()
		_ = os.Link(s.path(), s.lastPath())
	}
	s.pause()
	if err := p.file.CloseAtomicallyReplace(); err != nil {
		p.file.Cleanup()
		return fmt.Errorf("write state: %w", err)
	}
	s.pause()
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	s.pause()
	_ = s.writeRuntime(p.bytes)
	return nil
}

func (s *Store) pause() {
	if s.between != nil {
		s.between()
	}
}

// Abandon leaves the state in force as it is.
func (p *Pending) Abandon() { p.file.Cleanup() }

// Save is Prepare and Commit in one. Where the state directory takes no more,
// the runtime directory still gets its copy; memory says that it did.
func (s *Store) Save(d Durable) (memory bool, err error) {
	p, err := s.Prepare(d)
	if err == nil {
		if err = p.Commit(); err == nil {
			return true, nil
		}
	}
	b, encErr := s.encode(d)
	if encErr != nil {
		return false, encErr
	}
	return s.writeRuntime(b) == nil, err
}

func (s *Store) writeRuntime(b []byte) error {
	return renameio.WriteFile(s.runtimePath(), b, 0o600, renameio.WithTempDir(s.runtimeDir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
