//go:build !linux

package metrics

import (
	"io/fs"
	"os"
	"time"
)

func openKernelLog(string) (*os.File, error) { return nil, fs.ErrNotExist }

func kernelTime(time.Duration) time.Time { return time.Now() }
