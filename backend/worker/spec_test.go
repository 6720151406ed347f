package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/config"
)

func planOf(t *testing.T, w config.Worker, gpu bool) *plan {
	t.Helper()
	h := &host{}
	o := h.options("/state")
	o.HasGPU = func() bool { return gpu }
	p, err := newPlan(w, config.Logs{Size: 1 << 20, Keep: 3}, &o)
	must(t, err)
	return &p
}

func TestVLLMCommandOnGPU(t *testing.T) {
	w := vllmWorker("w0", "--max-model-len=2048", "--max-num-seqs", "16")
	w.VLLM.GPUs = []string{"0", "1"}
	w.APIKey = config.Secret{Ref: "env:KEY", Val: "hush"}
	s := planOf(t, w, true).at(18000)
	want := "vllm serve /models/m --max-model-len=2048 --max-num-seqs 16 --host 127.0.0.1 --port 18000 --served-model-name m" +
		" --enable-prompt-tokens-details --enable-request-id-headers --disable-access-log-for-endpoints /health,/metrics --shutdown-timeout 30"
	if got := strings.Join(s.Argv, " "); got != want {
		t.Errorf("argv = %s\nwant   %s", got, want)
	}
	for _, e := range []string{"CUDA_VISIBLE_DEVICES=0,1", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "VLLM_API_KEY=hush", "VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1", "PYTHONUNBUFFERED=1", "VLLM_DISABLE_LOG_LOGO=1"} {
		if !slices.Contains(s.Env, e) {
			t.Errorf("env lacks %s: %q", e, s.Env)
		}
	}
	if slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "VLLM_TARGET_DEVICE") }) {
		t.Errorf("env of a GPU worker = %q", s.Env)
	}
	if s.Folder != "/state/workers/w0" || s.URL != "http://127.0.0.1:18000" || s.Port != 18000 || s.LogSize != 1<<20 || s.LogKeep != 3 {
		t.Errorf("spec = %+v", s)
	}
}

func TestVLLMCommandOnCPU(t *testing.T) {
	w := vllmWorker("w0")
	w.VLLM.Env = map[string]string{"VLLM_CPU_KVCACHE_SPACE": "4"}
	s := planOf(t, w, false).at(1)
	if got := strings.Join(s.Argv, " "); !strings.Contains(got, "--enforce-eager --dtype float32 --generation-config vllm") {
		t.Errorf("argv = %s", got)
	}
	for _, e := range []string{"VLLM_TARGET_DEVICE=cpu", "VLLM_CPU_KVCACHE_SPACE=4", "VLLM_CPU_OMP_THREADS_BIND=nobind", "OMP_NUM_THREADS=1"} {
		if !slices.Contains(s.Env, e) {
			t.Errorf("env lacks %s: %q", e, s.Env)
		}
	}
}

func TestWhichWorkersRunOnTheCPU(t *testing.T) {
	for _, c := range []struct {
		name string
		gpus []string
		env  map[string]string
		gpu  bool
		want bool
	}{
		{"no gpus, bare host", nil, nil, false, true},
		{"no gpus, GPU host", nil, nil, true, false},
		{"no gpus, GPU host, told to", nil, map[string]string{"VLLM_TARGET_DEVICE": "cpu"}, true, true},
		{"gpus", []string{"0"}, nil, false, false},
		{"CUDA env", nil, map[string]string{"CUDA_VISIBLE_DEVICES": "1"}, false, false},
		{"another device", nil, map[string]string{"VLLM_TARGET_DEVICE": "tpu"}, false, false},
	} {
		w := vllmWorker("w0")
		w.VLLM.GPUs, w.VLLM.Env = c.gpus, c.env
		if got := slices.Contains(planOf(t, w, c.gpu).argv, "--enforce-eager"); got != c.want {
			t.Errorf("%s: on CPU = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTheUsersFlagWins(t *testing.T) {
	w := vllmWorker("w0", "--served_model_name", "theirs", "also", "--dtype=bfloat16", "--no-enforce-eager", "--shutdown-timeout=7",
		"--host", "0.0.0.0", "--port=1234", "--uds", "/tmp/x", "--no-enable-request-id-headers", "--api-key", "k")
	p := planOf(t, w, false)
	got := strings.Join(p.at(18000).Argv, " ")
	want := "vllm serve /models/m --served_model_name theirs also --dtype=bfloat16 --no-enforce-eager --shutdown-timeout=7 --no-enable-request-id-headers --api-key k" +
		" --host 127.0.0.1 --port 18000 --enable-prompt-tokens-details --disable-access-log-for-endpoints /health,/metrics --generation-config vllm"
	if got != want {
		t.Errorf("argv = %s\nwant   %s", got, want)
	}
	if p.served != "theirs" || p.key != "k" {
		t.Errorf("served %q, key %q", p.served, p.key)
	}
}

func TestSimCommand(t *testing.T) {
	w := vllmWorker("s0")
	w.VLLM, w.Sim = nil, &config.Sim{Seed: 3, Start: time.Second, TTFT: 60 * time.Millisecond, ITL: 12 * time.Millisecond, MaxSeqs: 32, MaxLen: 8192, Faults: []string{"die@5s", "slow"}}
	want := "/bin/vllmdeck sim --port 7 --model m --seed 3 --start 1s --ttft 60ms --itl 12ms --max-num-seqs 32 --max-model-len 8192 --fault die@5s --fault slow"
	if got := strings.Join(planOf(t, w, false).at(7).Argv, " "); got != want {
		t.Errorf("argv = %s\nwant   %s", got, want)
	}
}

func TestHashIsOfWhatRuns(t *testing.T) {
	base := planOf(t, vllmWorker("w0"), false).hash
	soft := vllmWorker("w0")
	soft.StopTimeout, soft.StartTimeout, soft.Restart.Tries = time.Hour, time.Hour, 7
	if got := planOf(t, soft, false).hash; got != base {
		t.Error("time limits change the hash")
	}
	for name, change := range map[string]func(w *config.Worker){
		"args": func(w *config.Worker) { w.VLLM.Args = []string{"--x"} },
		"env":  func(w *config.Worker) { w.VLLM.Env = map[string]string{"A": "b"} },
		"port": func(w *config.Worker) { w.Port = 8000 },
		"path": func(w *config.Worker) { w.VLLM.Path = "/models/n" },
		"key":  func(w *config.Worker) { w.APIKey.Val = "k" },
		"gpus": func(w *config.Worker) { w.VLLM.GPUs = []string{"1"} },
	} {
		w := vllmWorker("w0")
		change(&w)
		if planOf(t, w, false).hash == base {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

func TestEnvValuesMayNameTheirSource(t *testing.T) {
	t.Setenv("VLLMDECK_TEST_TOKEN", "from env")
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte("from file\n"), 0o600))
	w := vllmWorker("w0")
	w.VLLM.Env = map[string]string{"A": "env:VLLMDECK_TEST_TOKEN", "B": "file:" + file, "C": "plain"}
	s := planOf(t, w, true).spec
	for _, e := range []string{"A=from env", "B=from file", "C=plain"} {
		if !slices.Contains(s.Env, e) {
			t.Errorf("env lacks %q: %q", e, s.Env)
		}
	}
	w.VLLM.Env = map[string]string{"A": "env:VLLMDECK_TEST_NOT_SET"}
	h := &host{}
	o := h.options("/state")
	if _, err := newPlan(w, config.Logs{}, &o); err == nil || !strings.Contains(err.Error(), "worker w0: env A: VLLMDECK_TEST_NOT_SET is not set") {
		t.Errorf("error = %v", err)
	}
}
