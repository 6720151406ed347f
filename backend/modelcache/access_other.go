//go:build unix && !linux

package modelcache

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

func identify(info fs.FileInfo) (fileID, time.Time) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, time.Time{}
	}
	return fileID{uint64(st.Dev), st.Ino}, time.Time{}
}

func keepsAccess(string) bool { return false }

func openQuietly(path string) (*os.File, error) { return os.Open(path) }
