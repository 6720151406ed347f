package launch_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
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

func TestStraysAreThoseNobodyLooksAfter(t *testing.T) {
	dir := t.TempDir()
	i, err := newLocal().Launch(t.Context(), launch.Spec{
		Name: "kept", Argv: []string{os.Args[0], "launchtest", "named", "VLLM::EngineCor"}, Folder: filepath.Join(dir, "kept"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	named := func(parent string, env ...string) int {
		script := os.Args[0] + ` launchtest named $NAME & echo $!; wait; : ` + parent
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env = append(append(os.Environ(), "NAME=VLLM::EngineCor"), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
		r := bufio.NewReader(out)
		var pid int
		for pid == 0 {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Sscanf(line, "%d", &pid)
		}
		for deadline := time.Now().Add(20 * time.Second); comm(pid) != "VLLM::EngineCor"; <-time.After(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls itself %q", pid, comm(pid))
			}
		}
		return pid
	}
	orphan := named("nothing")
	offline := named("python user of the LLM class")
	marked := named("python", "VLLMDECK_WORKER_ID=gone/1")

	got, err := launch.Strays()
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]launch.Stray{}
	for _, s := range got {
		found[s.PID] = s
	}
	if s, ok := found[orphan]; !ok || s.Worker != "" || s.Name != "VLLM::EngineCor" || s.RSS <= 0 || s.Age < 0 || s.Age > 60 {
		t.Errorf("engine without API server: %+v, %v, want it listed", s, ok)
	}
	if s, ok := found[marked]; !ok || s.Worker != "gone/1" {
		t.Errorf("marked without a shim: %+v, %v, want it listed as gone/1", s, ok)
	}
	for what, pid := range map[string]int{"a worker under its shim": i.PID(), "an offline user's engine": offline} {
		if s, ok := found[pid]; ok {
			t.Errorf("%s is listed: %+v", what, s)
		}
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
