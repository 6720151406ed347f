package metrics

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestHostReadsProc(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "meminfo", "MemTotal:       16000000 kB\nMemFree:         1000 kB\nMemAvailable:    9000000 kB\n")
	put(t, dir, "stat", "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 5\n")
	h := HostReader{Proc: dir}
	got := h.Read()
	if got.CPUs != 4 || got.CPU != nil {
		t.Errorf("first read: %d CPUs, %v in use, want 4 and unknown", got.CPUs, got.CPU)
	}
	if got.MemoryTotal != 16000000<<10 || got.MemoryFree != 9000000<<10 {
		t.Errorf("memory %d of %d, want %d of %d", got.MemoryFree, got.MemoryTotal, 9000000<<10, 16000000<<10)
	}
	// 400 jiffies on, 300 of them busy: three of four cores.
	put(t, dir, "stat", "cpu  250 0 250 750 150 0 0 0 99 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n")
	if got := h.Read(); got.CPU == nil || *got.CPU != 3 {
		t.Errorf("cores in use = %v, want 3", got.CPU)
	}
	// All of them idle: the mean falls slowly, and after ten reads nothing is left of the work.
	idle := 750
	for i := range hostReads {
		idle += 400
		put(t, dir, "stat", fmt.Sprintf("cpu  250 0 250 %d 150 0 0 0 99 0\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n", idle))
		got := h.Read()
		if i == 0 && *got.CPU != 1.5 {
			t.Errorf("cores in use after one idle read = %v, want 1.5", *got.CPU)
		}
		if i == hostReads-1 && *got.CPU != 0 {
			t.Errorf("cores in use after %d idle reads = %v, want 0", hostReads, *got.CPU)
		}
	}
}

func TestHostWithoutProcIsUnknown(t *testing.T) {
	h := HostReader{Proc: t.TempDir()}
	h.Read()
	if got := h.Read(); got.CPUs == 0 || got.CPU != nil || got.MemoryTotal != 0 {
		t.Errorf("Read = %+v, want the number of CPUs alone", got)
	}
	put(t, h.Proc, "stat", "cpu x y z\n")
	put(t, h.Proc, "meminfo", "MemTotal: lots\n")
	if got := h.Read(); got.CPU != nil || got.MemoryTotal != 0 {
		t.Errorf("Read of junk = %+v, want unknown", got)
	}
}
