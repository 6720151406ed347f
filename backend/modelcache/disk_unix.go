//go:build unix

package modelcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fileID tells two names of one file from two files.
type fileID struct{ dev, ino uint64 }

// freeBytes is what a user may still write on the disk of path, or of the folder that path will
// be in.
func freeBytes(path string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // int32 or int64, by system
		}
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return 0, fmt.Errorf("read free space of %s: %w", path, err)
		}
		path = up
	}
}

// lockEvery is how often a lock that somebody holds is tried again.
const lockEvery = 250 * time.Millisecond

// lockFile takes a lock that huggingface_hub (filelock) takes too. It waits for it until ctx
// ends; with try it does not wait, and errHeld says that somebody has it.
func lockFile(ctx context.Context, path string, try bool) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("lock model file: %w", err)
	}
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o664)
		if err != nil {
			return nil, fmt.Errorf("lock model file: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && same(f, path) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
		switch {
		case err == nil: // it was removed meanwhile: the next one is another file
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, fmt.Errorf("lock model file: %w", err)
		case try:
			return nil, errHeld
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// same says whether path still names the open file.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

var errHeld = errors.New("another program holds it")

// noSpace says that a disk is full.
func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// noLinks says that a file system has no symbolic links.
func noLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS)
}
