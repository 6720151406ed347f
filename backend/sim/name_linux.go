package sim

import "os"

// setName sets the name that ps -c and /proc/PID/comm show; the kernel cuts it to 15 bytes.
// Written through /proc it falls on the process's first thread, whichever this one is.
func setName(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }
