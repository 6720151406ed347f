package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A file that is removed while it is open takes rows as before, and they are gone with the
// process. So each batch first looks whether the file is still there.
var errRemoved = errors.New("its file was removed while it was open")

// present makes sure that the database's file is where it belongs. One that was removed is
// written again from what is open, at the second look: until then the state says what happened.
func (l *Ledger) present(ctx context.Context) error {
	now, err := os.Stat(l.path)
	switch {
	case err == nil && os.SameFile(now, l.file):
		return nil
	case err == nil:
		return fmt.Errorf("another file has taken the place of %s: restart vllmdeck, the rows since then are brought into it", l.path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !errors.Is(l.dbErr, errRemoved):
		return fmt.Errorf("%s: %w", l.path, errRemoved)
	}
	if err := l.rescue(ctx); err != nil {
		return fmt.Errorf("%w: write it again: %w", errRemoved, err)
	}
	l.log.Warn("ledger file was removed: it is there again, whole", "path", l.path)
	return nil
}

// rescue writes the open database to a new file in the old one's place, and goes on in that.
func (l *Ledger) rescue(ctx context.Context) error {
	tmp := l.path + ".rescued"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = private(tmp)
	if _, err := l.db.ExecContext(ctx, "VACUUM INTO $1", tmp); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	// The last connection to close takes the log away by its name: not that of the new file.
	l.db.SetMaxIdleConns(0)
	l.readers.SetMaxIdleConns(0)
	defer l.db.SetMaxIdleConns(1)
	defer l.readers.SetMaxIdleConns(readConns)
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(l.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(tmp, l.path); err != nil {
		return err
	}
	file, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	l.file = file
	return nil
}
