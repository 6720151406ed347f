package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/metrics"
)

// A process that another engine is just ending looks like a stray for a moment.
func TestAStrayIsToldOnceItWasThereTwice(t *testing.T) {
	m := &machine{gpus: metrics.NewGPUs(slog.New(slog.DiscardHandler))}
	born := time.Now()
	stray := func(pid int) launch.Stray { return launch.Stray{PID: pid, Name: "VLLM::EngineCor", Started: born} }
	for i, c := range []struct {
		strays []launch.Stray
		want   string
	}{
		{[]launch.Stray{stray(1)}, ""},
		{[]launch.Stray{stray(1), stray(2)}, "stray process 1 (VLLM::EngineCor)"},
		{[]launch.Stray{stray(1)}, ""},
		{[]launch.Stray{stray(1), stray(2), stray(3)}, ""},
		{[]launch.Stray{stray(1), stray(2), stray(3)}, "2 stray processes (2, 3)"},
		{[]launch.Stray{stray(1), stray(2), {PID: 3, Started: born.Add(time.Hour)}}, ""},
	} {
		got := m.take(&launch.Census{Strays: c.strays})
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0].Text, c.want)) {
			t.Errorf("census %d: notices %+v, want %q", i, got, c.want)
		}
	}
}

func TestStraysAreListedByWhatTheyHold(t *testing.T) {
	m := &machine{}
	now := time.Now()
	m.strays = []launch.Stray{
		{PID: 1, Worker: "w0/abc", Started: now}, {PID: 2, Started: now.Add(-time.Hour)}, {PID: 3, Started: now}, {PID: 4, Started: now},
	}
	held := func(pid int, n int64) api.GPUProcess { return api.GPUProcess{PID: pid, Memory: &n} }
	cards := []api.GPU{{Index: "0", Processes: []api.GPUProcess{held(3, 10), held(4, 4)}}, {Index: "1", Processes: []api.GPUProcess{held(4, 8), {PID: 3}}}}
	got := m.list(cards)
	var order []string
	for _, s := range got {
		order = append(order, fmt.Sprintf("%d:%d:%s", s.PID, s.GPU, s.Worker))
	}
	if want := "4:12: 3:10: 2:0: 1:0:w0"; strings.Join(order, " ") != want {
		t.Errorf("strays = %q, want %q", order, want)
	}
}

func TestAnOrderToEndWhatIsNoStrayIsRefused(t *testing.T) {
	r := newRig(t, 1)
	for what, a := range map[string]api.Action{
		"this process":       {Target: strconv.Itoa(os.Getpid()), Args: map[string]string{"started": time.Now().Format(time.RFC3339Nano)}},
		"what is no pid":     {Target: "w0", Args: map[string]string{"started": time.Now().Format(time.RFC3339Nano)}},
		"one without start":  {Target: strconv.Itoa(os.Getpid())},
		"an order of a gate": {},
	} {
		a.Verb = api.StrayEnd
		if what == "an order of a gate" {
			a = api.Action{Verb: api.WorkerStart, Target: "w0", Args: map[string]string{"gate": "open"}}
		}
		if err := r.Do(t.Context(), a); !errors.Is(err, api.ErrRefused) {
			t.Errorf("%s: Do = %v, want it refused", what, err)
		}
	}
}

// A newer vLLM may know it: it is run all the same.
func TestAnUnknownFlagIsANotice(t *testing.T) {
	b := idleEngine(t, "workers:\n  - {name: w0, model: toy, gpus: 0, vllm: {path: /models/x, args: [--max-model-length=1024]}}\n")
	n := len(b.notices.list())
	if n == 0 || !strings.Contains(fmt.Sprint(b.notices.list()), "did you mean --max-model-len?") {
		t.Errorf("notices = %+v, want one with the nearest flag", b.notices.list())
	}
}

func TestAnXidErrorIsANotice(t *testing.T) {
	x := api.Xid{Time: time.Now(), Code: 79, Text: "the GPU has fallen off the bus", PID: 4312}
	if n := toldXid("GPU 1", x, true); n.Level != "error" || n.Text != "GPU 1: Xid 79: the GPU has fallen off the bus (pid 4312)" {
		t.Errorf("notice = %+v", n)
	}
	if n := toldXid("GPU 1", x, false); n.Level != "warning" {
		t.Errorf("level = %s, want warning", n.Level)
	}
}

// The name that the driver's tool gives stands where the process is not seen.
func TestProcessesOnACardHaveTheirOwner(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
case "$1" in
--query-gpu=*) while :; do echo "0, GPU-a, 00000000:65:00.0, 24576, 20000, 50, 60, 200, 300, 1500, 0, 0x4, NVIDIA L4"; ` + sleep + ` 0.1; done;;
*) while :; do t="2026/11/24 22:09:48.071"; echo "$t, GPU-a, 11, 100, /opt/venv/bin/python3"; echo "$t, GPU-a, 12, 200, [Not Found]"; echo "$t, GPU-a, 13, 300, VLLM::EngineCore"; exec ` + sleep + ` 600; done;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	r := newRig(t, 1)
	until(t, "the processes are seen", func() bool { g := r.snapshot().GPUs; return len(g) == 1 && len(g[0].Processes) == 3 })
	m := &machine{gpus: r.gpus, owners: map[int]launch.Owner{
		11: {Name: "python3", User: "alice", Preload: true},
		13: {Name: "VLLM::EngineCor", User: "bob", Worker: "w0"},
	}}
	ps := m.cards()[0].Processes
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%d %s %s %s %v", p.PID, p.Name, p.User, p.Worker, p.Preload))
	}
	if want := "13 VLLM::EngineCor bob w0 false|12    false|11 vllm preload alice  true"; strings.Join(got, "|") != want {
		t.Errorf("processes = %q, want %q", strings.Join(got, "|"), want)
	}
}

const sleep = "/bin/sleep"
