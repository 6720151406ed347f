package modelcache

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// identify gives a file's identity and when it was read last. With relatime, which is usual, that
// is right to a day.
func identify(info fs.FileInfo) (fileID, time.Time) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, time.Time{}
	}
	return fileID{st.Dev, st.Ino}, time.Unix(st.Atim.Unix())
}

// keepsAccess says whether the file system notes when files are read.
func keepsAccess(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOATIME == 0
}

// openQuietly opens a file to read without that counting as its last use.
func openQuietly(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOATIME, 0)
	if os.IsPermission(err) { // only a file's owner may
		return os.Open(path)
	}
	return f, err
}
