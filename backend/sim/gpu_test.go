//go:build unix

package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASimulatedGPUIsHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gpu")
	first, err := holdGPU(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		if _, err := holdGPU(path); err == nil || !strings.Contains(err.Error(), "CUDA out of memory") {
			t.Errorf("a second engine gets %v, want no memory", err)
		}
		if note, err := os.ReadFile(path + ".taken"); err != nil || strings.Count(string(note), "\n") != n {
			t.Errorf("noted is %q (%v), want %d lines", note, err, n)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := holdGPU(path)
	if err != nil {
		t.Fatalf("once it is free: %v", err)
	}
	_ = again.Close()
}
