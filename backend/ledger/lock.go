package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process has the ledger. The error is an *InUseError.
var ErrInUse = errors.New("ledger is in use")

// InUseError names who has the ledger.
type InUseError struct {
	Folder string
	PID    int // 0: not known
}

// Error says who and what to do.
func (e *InUseError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = "process " + strconv.Itoa(e.PID)
	}
	return fmt.Sprintf("the ledger in %s is in use by %s: stop it with \"vllmdeck stop\", or give this engine another state: folder", e.Folder, who)
}

// Unwrap makes the error an ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

// lock takes the folder for this process, until the file is closed or the process ends. The
// file stays: removing it would let two processes lock two files of one name.
func lock(folder string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, "ledger.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock ledger: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock ledger: %w", err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &InUseError{Folder: folder, PID: pid}
	}
	// Truncated after it is written: a reader never sees an empty file where there was a pid.
	text := fmt.Sprintf("%d\n", os.Getpid())
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock ledger: %w", err)
	}
	return f, nil
}
