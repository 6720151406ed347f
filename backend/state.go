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
	at := "which is only starting or ending"
	if e.URL != "" {
		at = "at " + e.URL
	}
	return fmt.Sprintf("an engine runs on this state already: pid %d %s", e.PID, at)
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
	if err := MakeState(dir); err != nil {
		return nil, err
	}
	if name := networkFS(dir); name != "" {
		return nil, fmt.Errorf("state folder %s is on a network file system (%s), where the ledger's locks do not hold: set state: in the config to a local folder", dir, name)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w: set state: in the config to a folder of yours", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock state folder: %w", err)
		}
		var owner stateOwner
		_ = json.NewDecoder(f).Decode(&owner) // in the first instant of an owner there is nothing yet
		return nil, &HeldError{PID: owner.PID, URL: owner.URL}
	}
	l := &StateLock{f}
	// Not the words of the last owner, until there is a URL.
	if err := l.Publish(""); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

const lockName = "engine.lock"

// MakeState makes the state folder, or closes to others one that is there and empty. Nothing is to be put into it
// before: a folder that holds something else is refused.
func MakeState(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w: set state: in the config to a folder of yours", err)
	}
	return closeToOthers(dir)
}

// closeToOthers gives a folder mode 0700, if it is ours to close: the home folder or /tmp, set
// as state: by mistake, must not be.
func closeToOthers(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at state folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("state folder %s is not a folder: set state: in the config to one", dir)
	}
	if st.Mode().Perm() == 0o700 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
		names, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("look at state folder: %w: set state: in the config to a folder of yours", err)
		}
		if len(names) > 0 {
			return fmt.Errorf("state folder %s is open to others (mode %04o) and holds something else (%s): set state: in the config to a folder of its own, or run: chmod 700 %s",
				dir, st.Mode().Perm(), names[0].Name(), dir)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close state folder to others: %w: set state: in the config to a folder of yours", err)
	}
	return nil
}

// Publish says who has the folder, for the message of the next one who wants it.
func (l *StateLock) Publish(url string) error {
	text, err := json.Marshal(stateOwner{PID: os.Getpid(), URL: url})
	if err != nil {
		return err
	}
	_, err = l.file.WriteAt(append(text, '\n'), 0) // one JSON value: what an older, longer text leaves behind it is not read
	if err != nil {
		return fmt.Errorf("write state lock: %w: make room there, or set state: in the config to another folder", err)
	}
	return nil
}

// Close lets go of the folder.
func (l *StateLock) Close() error { return l.file.Close() }
