package launch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	return &launch.Local{Shim: []string{exe, "shim"}, Secrets: func() []string { return []string{"VLLMDECK_CONFIG"} }}
}

// TestMain also makes this binary the shim and the servers of its own tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(launch.RunShim(context.Background(), os.Args[2:]))
	}
	launchtest.Main(newLocal)
	runtime, err := os.MkdirTemp("", "launch")
	if err != nil {
		panic(err)
	}
	for _, kv := range [][2]string{
		{"OPENAI_API_KEY", "canary"},
		{"LAUNCHTEST_CANARY_SECRET", "canary"},
		{"VLLMDECK_CONFIG", "canary"},
		{"VLLM_API_KEY", "ours"},
		{"HF_TOKEN", "hf_canary"},
		{"XDG_RUNTIME_DIR", runtime},
	} {
		if err := os.Setenv(kv[0], kv[1]); err != nil {
			panic(err)
		}
	}
	// Whoever closed an instance reaps its shim in the shim's own time.
	reaper := goleak.IgnoreAnyFunction("github.com/vllmdeck/vllmdeck/backend/launch.(*instance).watch.func1")
	goleak.VerifyTestMain(m, reaper, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(runtime)
		os.Exit(code)
	}))
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

// The control socket must stay readable for engines of other versions.
func TestControlSocketAnswersWhatItKnowsAndSurvivesTheRest(t *testing.T) {
	sp := launch.Spec{Name: "w0", Argv: []string{os.Args[0], "launchtest", "serve"}, Folder: filepath.Join(t.TempDir(), "w0")}
	i, err := newLocal().Launch(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	socket := filepath.Join(sp.Folder, "shim.sock")
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket = %v, %v, want mode 0600", st, err)
	}
	say := func(line string) string {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, line)
		b, _ := io.ReadAll(c)
		return string(b)
	}
	for line, want := range map[string]string{
		"{\"op\":\"status\"}\n":               fmt.Sprintf(`"pids":[%d]`, i.PID()),
		"{\"op\":\"dance\"}\n":                `"error":"unknown op dance"`,
		"nonsense\n":                          "",
		strings.Repeat("long", 2000) + "\n":   "",
		"{\"op\":\"status\",\"more\":true}\n": `"marker":"w0/`,
	} {
		if got := say(line); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("to %.40q the shim says %q, want %q", line, got, want)
		}
	}
	if got := say("{\"op\":\"kill\"}\n"); !strings.Contains(got, "w0/") || strings.Contains(got, "error") {
		t.Errorf("to kill the shim says %q", got)
	}
	<-i.Done()
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
