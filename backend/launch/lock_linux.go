package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("locked")

// lockFile takes the lock of path, making the file if need be, and holds it for as long as
// the returned file is open. How is unix.LOCK_EX or unix.LOCK_SH; errLocked if it is taken.
// The kernel gives a flock back when its holder dies, however it dies.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

// lockFolder is lockFile for a worker's folder. An engine that looks whether a server is there
// holds the lock for an instant, so it is asked for again until wait is over.
func lockFolder(ctx context.Context, folder string, wait time.Duration) (*os.File, error) {
	deadline := time.Now().Add(wait)
	for {
		f, err := lockFile(filepath.Join(folder, lockName), unix.LOCK_EX)
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// runs is the error for a folder whose lock is taken.
func runs(s Spec) error {
	if r, err := readRecord(s.Folder); err == nil && r.Shim.alive() {
		return fmt.Errorf("worker %s runs already in %s (pid %d, shim %d): stop it first with \"vllmdeck stop %s\"",
			s.Name, s.Folder, r.Child.PID, r.Shim.PID, s.Name)
	}
	return fmt.Errorf("worker %s: its folder %s is in use by another engine, or by one in another container", s.Name, s.Folder)
}

// lease watches the lock of the owner of a server that must not outlive it.
type lease struct {
	path   string
	inode  uint64
	shared *os.File // held by every shim under the lease; the last one has it alone
}

// newLease is for a lease that the owner holds now.
func newLease(path string) (*lease, error) {
	l := &lease{path: path}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &os.PathError{Op: "lease", Path: path, Err: err}
	}
	l.inode = st.Ino
	if l.lost() {
		return nil, fmt.Errorf("lease %s: nobody holds it", path)
	}
	f, err := lockFile(path+".shims", unix.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", path, err)
	}
	l.shared = f
	return l, nil
}

// lost says whether the owner is gone: the file is not there, or is another one, or its lock
// is free. The lock is tried shared, so that shims do not take each other for the owner.
func (l *lease) lost() bool {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil && st.Ino != l.inode {
		return true
	}
	return flock(f, unix.LOCK_SH) == nil
}

// last says whether no other shim lives under the lease. Asking gives up the own share, so of
// several that ask the last one is told so. The file that counted them is gone then.
func (l *lease) last() bool {
	if flock(l.shared, unix.LOCK_EX) != nil {
		return false
	}
	_ = os.Remove(l.shared.Name())
	return true
}

// cleanupAllowed guards a removal of a whole folder: it must hold the worker's folder and the
// lease, which a wrong path does not.
func cleanupAllowed(s Spec) error {
	if s.Cleanup == "" {
		return nil
	}
	for _, in := range []string{s.Folder, s.Lease} {
		rel, err := filepath.Rel(s.Cleanup, in)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			return fmt.Errorf("cleanup folder %q does not hold %q", s.Cleanup, in)
		}
	}
	return nil
}
