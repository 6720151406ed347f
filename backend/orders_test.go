package backend

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestNoNameLeadsOutOfItsFolder gives orders and logs names that are paths: each is refused, and nothing is touched.
func TestNoNameLeadsOutOfItsFolder(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", filepath.Join(t.TempDir(), "hub"))
	e := idleEngine(t, "workers: [{name: w0, model: toy, attach: \"http://127.0.0.1:1\"}]")
	state := e.config.Load().State
	outside := filepath.Join(filepath.Dir(state), "outside.log")
	for _, path := range []string{outside, strings.TrimSuffix(outside, ".log") + ".json", filepath.Join(state, "20261124-214500.345678-w0.log"), filepath.Join(state, "20261124-214500.345678-w0.json")} {
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"crash/../../outside", "crash/..", "crash/", "crash/../20261124-214500.345678-w0", "crash/20261124-214500.345678-../../outside", "prompt/../../outside",
		"../../outside", "w0/../../outside", "/etc/passwd", "", strings.Repeat("a", 1<<20), "\x00",
	} {
		if lines, err := e.Log(t.Context(), name, 0); !errors.Is(err, api.ErrUnknown) || len(err.Error()) > 1000 {
			t.Errorf("Log(%.40q) = %v, %.200v; want ErrUnknown in short", name, lines, err)
		}
	}
	for _, target := range []string{"../../outside", "a/../../outside", "..", "", "/etc", "models--x", strings.Repeat("a", 1<<20), "a\x00b", "a/b\n", "\xff"} {
		for _, verb := range []api.Verb{
			api.CacheFetch, api.CacheRemove, api.CacheCancel, api.WorkerStart, api.WorkerFix, api.WorkerUnfix, api.WorkerSleep, api.ModelRoll, api.ModelUnroll, api.StrayEnd, api.PromptCancel,
		} {
			err := e.Do(t.Context(), api.Action{Verb: verb, Target: target})
			if !errors.Is(err, api.ErrUnknown) && !errors.Is(err, api.ErrRefused) || len(err.Error()) > 1000 {
				t.Errorf("%s %.40q: %.200v; want a refusal in short", verb, target, err)
			}
		}
	}
	for _, rev := range []string{"../../x", "a/../../x", "/x", "a//b", "a b"} {
		if err := e.Do(t.Context(), api.Action{Verb: api.CacheFetch, Target: "org/model", Args: map[string]string{"revision": rev}}); !errors.Is(err, api.ErrRefused) {
			t.Errorf("revision %q: %v, want a refusal", rev, err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}
