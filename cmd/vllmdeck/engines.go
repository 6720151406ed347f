package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// engineRecord is what a running engine leaves in the runtime folder, so that every command of
// its user finds it from any directory. A demo leaves it in its own folder, with which it goes
// however the demo ends.
type engineRecord struct {
	PID     int       `json:"pid"`
	Birth   string    `json:"birth"` // start time of the process; tells it from a later one with its pid
	Socket  string    `json:"socket"`
	URL     string    `json:"url"`
	State   string    `json:"state"`
	Config  string    `json:"config"`
	Version string    `json:"version"`
	Demo    bool      `json:"demo,omitempty"`
	Started time.Time `json:"started"`

	path string // where it was read
}

const (
	socketName = "engine.sock"    // in the state folder
	demoPrefix = "vllmdeck-demo-" // of demo folders, in the folder for temporary files
	demoRecord = "engine.json"    // in a demo's folder
)

// runtimeDirs are where sockets and engine records may be, the best first: private to the user,
// gone after a reboot. An engine of a system service has no XDG_RUNTIME_DIR, the shell beside it
// has: so both are looked at, whichever was written to.
func runtimeDirs() []string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = "/run/user/" + strconv.Itoa(os.Getuid())
	}
	var dirs []string
	if st, err := os.Stat(base); err == nil && st.IsDir() {
		dirs = append(dirs, filepath.Join(base, "vllmdeck"))
	}
	return append(dirs, filepath.Join(os.TempDir(), "vllmdeck-"+strconv.Itoa(os.Getuid())))
}

// runtimeDir makes the first of them that can be had.
func runtimeDir() (string, error) {
	var errs []error
	for _, dir := range runtimeDirs() {
		err := os.MkdirAll(dir, 0o700)
		if err == nil && !private(dir) {
			// In a shared /tmp somebody else may have made it first.
			err = fmt.Errorf("%s is not a private folder of this user: remove it", dir)
		}
		if err == nil {
			err = writable(dir)
		}
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("make runtime folder: %w: set XDG_RUNTIME_DIR to a folder of yours", errors.Join(errs...))
}

// private says whether a folder is ours and closed to others.
func private(dir string) bool {
	st, err := os.Lstat(dir)
	return err == nil && st.IsDir() && st.Mode().Perm()&0o077 == 0 && ownedByUs(st)
}

// recordPath is where rec belongs.
func (rec engineRecord) recordPath() (string, error) {
	if rec.Demo {
		return filepath.Join(rec.State, demoRecord), nil
	}
	dir, err := runtimeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "engine-"+strconv.Itoa(rec.PID)+".json"), nil
}

// register leaves rec where other commands look. The returned func takes it away.
func (rec engineRecord) register() (func(), error) {
	path, err := rec.recordPath()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode engine record: %w", err)
	}
	if err := launch.Replace(path, text); err != nil {
		return nil, fmt.Errorf("write engine record: %w", err)
	}
	return func() { _ = os.Remove(path) }, nil
}

// runningEngines lists the engines of this user, newest first, and clears away the records of
// dead ones.
func runningEngines() []engineRecord {
	var paths []string
	for _, dir := range runtimeDirs() {
		if private(dir) {
			found, _ := filepath.Glob(filepath.Join(dir, "engine-*.json")) // the pattern is ours: no error
			paths = append(paths, found...)
		}
	}
	for _, dir := range demoFolders() {
		paths = append(paths, filepath.Join(dir, demoRecord))
	}
	var recs []engineRecord
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		rec := engineRecord{path: p}
		if json.Unmarshal(text, &rec) != nil {
			_ = os.Remove(p)
			continue
		}
		recs = append(recs, rec)
	}
	slices.SortFunc(recs, func(a, b engineRecord) int { return b.Started.Compare(a.Started) })
	taken := map[string]bool{} // sockets: a later engine on the state of a killed one has the same
	var alive []engineRecord
	for _, rec := range recs {
		// One in a container beside us cannot be seen by its pid, but answers.
		if processIs(rec.PID, rec.Birth) || !taken[rec.Socket] && answers(rec.Socket) {
			taken[rec.Socket] = true
			alive = append(alive, rec)
			continue
		}
		_ = os.Remove(rec.path)
		if filepath.Dir(rec.Socket) == filepath.Dir(rec.path) {
			_ = os.Remove(rec.Socket)
		}
	}
	return alive
}

// demoFolders are the folders of demos of this user, running or not.
func demoFolders() []string {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), demoPrefix+"*")) // the pattern is ours: no error
	return slices.DeleteFunc(found, func(dir string) bool { return !private(dir) })
}

var errNoEngine = &exitError{code: exitRunning, err: errors.New(`no engine runs: "vllmdeck" starts one, "vllmdeck serve" in the foreground`)}

// findEngine picks the engine that a command without --engine means: the real one of this
// user. A demo counts only where demos is set and nothing else runs.
func findEngine(demos bool) (engineRecord, error) {
	var real, demo []engineRecord
	for _, r := range runningEngines() {
		if r.Demo {
			demo = append(demo, r)
		} else {
			real = append(real, r)
		}
	}
	switch {
	case len(real) == 1:
		return real[0], nil
	case len(real) > 1:
		lines := make([]string, len(real))
		for i, r := range real {
			lines[i] = fmt.Sprintf("  --engine unix:%s   (pid %d, %s, state %s)", r.Socket, r.PID, r.URL, r.State)
		}
		return engineRecord{}, &exitError{code: exitUsage, err: fmt.Errorf("%d engines run; name one:\n%s", len(real), strings.Join(lines, "\n"))}
	case demos && len(demo) > 0:
		return demo[0], nil
	}
	return engineRecord{}, errNoEngine
}

// dial gives a client for the engine that the command line means.
func (g *globals) dial() (*api.Client, error) {
	if g.engine != "" {
		c, err := api.Dial(g.engine)
		if err != nil {
			return nil, &exitError{code: exitUsage, err: err}
		}
		return c, nil
	}
	rec, err := g.record()
	if err != nil {
		return nil, err
	}
	return api.Dial("unix:" + rec.Socket)
}

// record is the engine that runs with the config of the command line, or the one of this user.
func (g *globals) record() (engineRecord, error) {
	if g.config == "" {
		rec, err := findEngine(true)
		if !errors.Is(err, errNoEngine) {
			return rec, err
		}
		// Where no runtime folder can be written, as in a read-only container, there are no records.
		if cfg, cerr := g.load(); cerr == nil {
			if rec, ok := engineOfState(cfg.State); ok {
				return rec, nil
			}
		}
		return rec, err
	}
	// By the file first: reading it may need secrets that only the engine was given.
	if path, ok, err := config.Find(g.config); err == nil && ok {
		for _, r := range runningEngines() {
			if sameFile(r.Config, path) {
				return r, nil
			}
		}
	}
	cfg, err := g.load()
	if err != nil {
		return engineRecord{}, err
	}
	if rec, ok := engineOfState(cfg.State); ok {
		return rec, nil
	}
	return engineRecord{}, &exitError{code: exitRunning, err: fmt.Errorf("no engine runs with %s: \"vllmdeck --config %s\" starts one", cfg.Path, g.config)}
}

// engineOfState is the engine that works on a state folder and answers.
func engineOfState(state string) (engineRecord, bool) {
	for _, r := range runningEngines() {
		if (r.State == state || sameFile(r.State, state)) && answers(r.Socket) {
			return r, true
		}
	}
	if socket := filepath.Join(state, socketName); answers(socket) {
		return engineRecord{Socket: socket, State: state}, true
	}
	return engineRecord{}, false
}

// snapshot dials and fetches once.
func (g *globals) snapshot(ctx context.Context) (*api.Client, *api.Snapshot, error) {
	c, err := g.dial()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := c.Snapshot(ctx)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, s, nil
}

// controlSocket is where an engine with this state folder listens: in the folder, or, where
// that path is too long for a socket, in the runtime folder.
func controlSocket(state string) (string, error) {
	path := filepath.Join(state, socketName)
	if len(path) <= api.MaxSocketPath {
		return path, nil
	}
	dir, err := runtimeDir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "engine-"+strconv.Itoa(os.Getpid())+".sock")
	if len(path) > api.MaxSocketPath {
		return "", fmt.Errorf("socket path %s is too long: set XDG_RUNTIME_DIR or state to a shorter one", path)
	}
	return path, nil
}

// answers says whether somebody accepts connections on a unix socket.
func answers(socket string) bool {
	c, err := (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
