package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestRealVLLMIsMended has a real server fail three ways whose remedy is a flag, mends each by an order, kills it while no
// engine runs, and finds it all in the crash book.
func TestRealVLLMIsMended(t *testing.T) {
	dir := realVLLM(t)
	config := realConfig(dir, "tiny", 1)
	r := newRig(t, func(state string) string {
		return strings.Replace(config(state), "--max-model-len=1024", "--max-model-len=999999, --enable-sleep-mode, --max-nun-seqs=8", 1)
	})
	engine := r.serve()
	given := func(cause string) {
		t.Helper()
		r.until(5*time.Minute, "w0 fails: "+cause, func() bool {
			w := r.worker("w0")
			return w.State == api.Failed && w.NextStart.IsZero() && strings.Contains(w.Error, cause)
		})
		w := r.worker("w0")
		if w.Fix == nil {
			t.Fatalf("no fix for %q (%s)", w.Error, w.Remedy)
		}
		t.Logf("%s: with %v without %v", w.Error, w.Fix.Set, w.Fix.Unset)
	}
	// What argparse refuses comes first, then what the configuration refuses.
	given("does not know the flag --max-nun-seqs=8")
	for range 2 {
		r.run("worker", "fix", "w0", "--yes", "--wait", "0")
		r.until(5*time.Minute, "it starts", func() bool { return r.worker("w0").State != api.Failed })
		r.until(5*time.Minute, "it fails again", func() bool { return r.worker("w0").State == api.Failed })
		t.Logf("then: %s", r.worker("w0").Error)
		given("")
	}
	r.run("worker", "fix", "w0", "--yes")
	w := r.worker("w0")
	if w.State != api.Ready || len(w.Fixed) != 3 || w.Crashes != 3 {
		t.Errorf("%s, fixed %q, %d crashes; want it ready, mended thrice", w.State, w.Fixed, w.Crashes)
	}
	if w.MaxLen == 0 || w.MaxLen == 999999 {
		t.Errorf("max_model_len = %d", w.MaxLen)
	}

	// It dies while no engine is there.
	r.run("stop", "--keep-workers", "--yes")
	engine.exit(t, time.Minute)
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, time.Minute, "its processes are gone", func() bool { return processBirth(w.PID) == "" })
	r.serve()
	r.awaitReady("w0")
	text := r.run("worker", "crashes", "w0")
	if strings.Count(text, "w0") < 4 || !strings.Contains(text, "killed by SIGKILL") {
		t.Errorf("the crash book:\n%s", text)
	}
	if found, err := filepath.Glob(filepath.Join(r.dir, "state", "crashes", "*.log")); err != nil || len(found) != 4 {
		t.Errorf("%d logs in the book, %v; want 4", len(found), err)
	}
	t.Logf("%s", text)
	r.run("stop", "--yes")
}
