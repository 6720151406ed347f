package launch

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Names in a worker's folder.
const (
	recordName = "shim.json"  // what runs, for the next engine
	exitName   = "exit.json"  // how the last one ended
	lockName   = "lock"       // locked by the shim for as long as it lives
	socketName = "shim.sock"  // control, see control_linux.go
	logName    = "output.log" // stdout and stderr of the server
	shimLog    = "shim.log"   // what the shim has to say itself
)

// record is shim.json: how a later engine recognises what an earlier one started. A pid alone
// proves nothing, since pids are reused; pid, start time and boot together do.
type record struct {
	Marker  string    `json:"marker"`  // value of markerEnv in the server's processes
	BootID  string    `json:"boot_id"` // of the kernel that the pids are from
	Shim    ident     `json:"shim"`
	Child   ident     `json:"child"` // the leader; zero until it exists
	Started time.Time `json:"started"`
	Socket  string    `json:"socket"`
	Spec    Spec      `json:"spec"` // as public gives it
}

// ident is a process for as long as the host is up.
type ident struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot: field 22 of /proc/PID/stat
}

// exitRecord is exit.json.
type exitRecord struct {
	Marker string    `json:"marker"`
	Code   int       `json:"code"`
	Signal string    `json:"signal,omitempty"`
	At     time.Time `json:"at"`
	Known  bool      `json:"known"`
}

func (e exitRecord) exit() Exit {
	return Exit{Code: e.Code, Signal: e.Signal, At: e.At, Known: e.Known}
}

// LastExit is how the last server of a worker's folder ended, if one has.
func LastExit(folder string) (Exit, bool) {
	e, err := readExit(folder)
	return e.exit(), err == nil
}

func readExit(folder string) (exitRecord, error) {
	var e exitRecord
	err := readJSON(filepath.Join(folder, exitName), &e)
	return e, err
}

func readRecord(folder string) (record, error) {
	var r record
	err := readJSON(filepath.Join(folder, recordName), &r)
	return r, err
}

// public is the Spec without what may be secret, as it goes to disk.
func (s Spec) public() Spec {
	s.Env = nil
	s.Argv = Redact(s.Argv)
	return s
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON writes v with Replace.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Replace(path, append(b, '\n'))
}

// Replace writes a file of this user alone in one step that survives a power cut: a reader sees the old file or the
// new one, never a part. One writer of a path at a time.
func Replace(path string, text []byte) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	if d, derr := os.Open(filepath.Dir(path)); derr == nil {
		_ = d.Sync() // not every file system can; the rename itself is done
		_ = d.Close()
	}
	return nil
}
