package launch_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/backend/launch/launchtest"
)

func newLocal() launch.Launcher {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return &launch.Local{Shim: []string{exe, "shim"}, Secrets: []string{"VLLMDECK_CONFIG"}}
}

// TestMain also makes this binary the shim and the servers of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(launch.RunShim(context.Background(), os.Args[2:]))
	}
	launchtest.Main(newLocal)
	for _, kv := range [][2]string{
		{"OPENAI_API_KEY", "canary"}, {"LAUNCHTEST_CANARY_SECRET", "canary"}, {"VLLMDECK_CONFIG", "canary"},
		{"VLLM_API_KEY", "ours"}, {"HF_TOKEN", "hf_canary"},
	} {
		if err := os.Setenv(kv[0], kv[1]); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func TestLocalHoldsTheContract(t *testing.T) {
	launchtest.Suite{New: newLocal, Shim: shimPID}.Run(t)
}

func shimPID(t *testing.T, folder string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, "shim.json"))
	var r struct{ Shim struct{ PID int } }
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || r.Shim.PID == 0 {
		t.Fatalf("record in %s: %v", folder, err)
	}
	return r.Shim.PID
}
