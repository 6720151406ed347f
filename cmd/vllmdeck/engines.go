package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// engineRecord is what a running engine leaves in the runtime folder, so that every command of
// its user finds it from any directory.
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
}

// runtimeDir is the folder for sockets and engine records: private to the user, gone after a
// reboot.
func runtimeDir() (string, error) {
	dir := ""
	if base := os.Getenv("XDG_RUNTIME_DIR"); base != "" {
		if st, err := os.Stat(base); err == nil && st.IsDir() {
			dir = filepath.Join(base, "vllmdeck")
		}
	}
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "vllmdeck-"+strconv.Itoa(os.Getuid()))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make runtime folder: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("look at runtime folder: %w", err)
	}
	// In a shared /tmp somebody else may have made it first.
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 || !ownedByUs(st) {
		return "", fmt.Errorf("runtime folder %s is not a private folder of this user: remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return dir, nil
}

// register leaves rec where other commands look. The returned func takes it away.
func (rec engineRecord) register() (func(), error) {
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "engine-"+strconv.Itoa(rec.PID)+".json")
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode engine record: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return nil, fmt.Errorf("write engine record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, fmt.Errorf("write engine record: %w", err)
	}
	return func() { _ = os.Remove(path) }, nil
}

// alive says whether the process of the record still is that process.
func (rec engineRecord) alive() bool {
	return processAlive(rec.PID) && processBirth(rec.PID) == rec.Birth
}

// runningEngines lists the engines of this user, newest first, and clears away the records of
// dead ones.
func runningEngines() ([]engineRecord, error) {
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "engine-*.json"))
	if err != nil {
		return nil, err
	}
	var recs []engineRecord
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		var rec engineRecord
		if json.Unmarshal(text, &rec) != nil || !rec.alive() {
			_ = os.Remove(p)
			continue
		}
		recs = append(recs, rec)
	}
	sort.Slice(recs, func(i, k int) bool { return recs[i].Started.After(recs[k].Started) })
	return recs, nil
}

var errNoEngine = &exitError{code: exitRunning, err: errors.New(`no engine runs: "vllmdeck" starts one, "vllmdeck serve" in the foreground`)}

// findEngine picks the engine that a command without --engine means: the real one of this
// user. A demo counts only where demos is set and nothing else runs.
func findEngine(demos bool) (engineRecord, error) {
	recs, err := runningEngines()
	if err != nil {
		return engineRecord{}, err
	}
	var real, demo []engineRecord
	for _, r := range recs {
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
	rec, err := findEngine(true)
	if err != nil {
		return nil, err
	}
	return api.Dial("unix:" + rec.Socket)
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
		if errors.Is(err, api.ErrAway) {
			err = &exitError{code: exitRunning, err: err}
		}
		return nil, nil, err
	}
	return c, s, nil
}

// controlSocket is where an engine with this state folder listens: in the folder, or, where
// that path is too long for a socket, in the runtime folder.
func controlSocket(state string) (string, error) {
	path := filepath.Join(state, "engine.sock")
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
	c, err := net.DialTimeout("unix", socket, 500*time.Millisecond)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
