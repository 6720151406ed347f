package metrics

import (
	"os"
	"time"

	sys "golang.org/x/sys/unix"
)

// openKernelLog opens it so that a read can be broken off.
func openKernelLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|sys.O_NONBLOCK, 0)
}

// kernelTime is when a record was written, by its time since the start of the kernel.
func kernelTime(since time.Duration) time.Time {
	var ts sys.Timespec
	if sys.ClockGettime(sys.CLOCK_MONOTONIC, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(since - time.Duration(ts.Nano())).Truncate(time.Millisecond)
}
