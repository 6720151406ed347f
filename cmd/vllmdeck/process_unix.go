//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownedByUs(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}

// writable says why nothing can be written into a folder; nil if it can.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

// processAlive says whether there is such a process. One that has ended and that nobody waits
// for, as in a container without an init, still is: see processBirth.
func processAlive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// processIs says whether a process is there and is the one that was born then.
func processIs(pid int, birth string) bool {
	return pid > 0 && processAlive(pid) && processBirth(pid) == birth
}

// detach puts a child into a session of its own, away from this terminal's signals.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// execSelf replaces this process by another program under the same pid.
func execSelf(path string, args []string) error {
	return syscall.Exec(path, append([]string{path}, args...), os.Environ())
}

// freeSpace is what an unprivileged user may still write below dir, in bytes.
func freeSpace(dir string) (int64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // not an int64 everywhere
}
