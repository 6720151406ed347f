//go:build unix

package sim

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// gpuEnv names a file that stands for a GPU: the engine's process holds it locked for as long as it lives, in a
// session of its own, as a real one holds its memory whatever becomes of its server. An engine that finds it
// taken fails as for want of memory, and notes the time in FILE.taken.
const gpuEnv = "SIMULATED_GPU"

// holdGPU takes the GPU. It is free again when f is closed, which the end of the process does.
func holdGPU(path string) (f *os.File, err error) {
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open simulated GPU: %w", err)
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return f, nil
	}
	_ = f.Close()
	if note, nerr := os.OpenFile(path+".taken", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); nerr == nil {
		_, _ = fmt.Fprintln(note, time.Now().Format(time.RFC3339Nano)) // who reads it counts lines
		_ = note.Close()
	}
	return nil, fmt.Errorf("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24.00 GiB of which 0 bytes is free: %w", err)
}
