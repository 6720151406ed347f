package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// HeldError says that another engine works on a state folder.
type HeldError struct {
	PID int
	URL string
}

// Error implements error.
func (e *HeldError) Error() string {
	return fmt.Sprintf("state folder is in use by the engine with pid %d at %s", e.PID, e.URL)
}

// StateLock is an engine's hold on its state folder, for as long as its process lives.
type StateLock struct{ file *os.File }

type stateOwner struct {
	PID int    `json:"pid"`
	URL string `json:"url"`
}

// OpenState makes the state folder (mode 0700) and takes hold of it. HeldError if another
// engine has it. A folder on a network file system is refused: SQLite's locks and its log need
// a local one.
func OpenState(dir string) (*StateLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w: set state: in the config to a folder of yours", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close state folder to others: %w: set state: in the config to a folder of yours", err)
	}
	if name := networkFS(dir); name != "" {
		return nil, fmt.Errorf("state folder %s is on a network file system (%s), where the ledger's locks do not hold: set state: in the config to a local folder", dir, name)
	}
	f, err := os.OpenFile(filepath.Join(dir, "engine.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock state folder: %w", err)
		}
		var owner stateOwner
		_ = json.NewDecoder(f).Decode(&owner) // an owner that is only starting has written nothing yet
		return nil, &HeldError{PID: owner.PID, URL: owner.URL}
	}
	return &StateLock{f}, nil
}

// Publish says who has the folder, for the message of the next one who wants it.
func (l *StateLock) Publish(url string) error {
	text, err := json.Marshal(stateOwner{PID: os.Getpid(), URL: url})
	if err != nil {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write state lock: %w", err)
	}
	if _, err := l.file.WriteAt(text, 0); err != nil {
		return fmt.Errorf("write state lock: %w", err)
	}
	return nil
}

// Close lets go of the folder.
func (l *StateLock) Close() error { return l.file.Close() }
