//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestRealVLLMSleeps puts a real server to sleep and wakes it by a request, at both levels. On a CPU vLLM refuses
// --enable-sleep-mode, but has the routes with dev mode alone: it frees nothing, pauses, parks requests, and loads weights anew. So the
// server is one that runs already.
func TestRealVLLMSleeps(t *testing.T) {
	dir := realVLLM(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	url := "http://127.0.0.1:" + strconv.Itoa(port)
	log, err := os.Create(filepath.Join(t.TempDir(), "vllm.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server := exec.Command(filepath.Join(dir, "venv/bin/vllm"), "serve", filepath.Join(dir, "models", cpuModel), "--served-model-name", cpuModel,
		"--host", "127.0.0.1", "--port", strconv.Itoa(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "4",
		"--generation-config", "vllm", "--enable-prompt-tokens-details")
	server.Env = append(os.Environ(), "VLLM_SERVER_DEV_MODE=1", "VLLM_TARGET_DEVICE=cpu", "VLLM_CPU_KVCACHE_SPACE=1", "VLLM_CPU_OMP_THREADS_BIND=nobind",
		"OMP_NUM_THREADS=1", "HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1")
	server.Stdout, server.Stderr = log, log
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-server.Process.Pid, syscall.SIGKILL) // its engine too
		_ = server.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("vLLM:\n%s", text[max(0, len(text)-6000):])
		}
	}()

	r := newRig(t, func(state string) string {
		return fmt.Sprintf("listen: 127.0.0.1:0\nstate: %s\ngateway: {queue_wait: 2m}\ncost: {gpu_hour: 1}\nworkers:\n  - {name: w0, model: %s, attach: %q, gpus: 1, sleep: {level: 1}}\n", state, cpuModel, url)
	})
	r.serve()
	until(t, 4*time.Minute, "the server is ready", func() bool { return r.worker("w0").State == api.Ready })
	if !r.worker("w0").CanSleep {
		t.Fatal("it is not seen that it can sleep")
	}
	ask := func() string {
		t.Helper()
		status, text, err := r.post("/v1/chat/completions", `{"messages":[{"role":"user","content":"What is the capital of France?"}],"max_tokens":16,"temperature":0}`)
		if err != nil || status != http.StatusOK {
			t.Fatalf("HTTP %d, %v: %s", status, err, text)
		}
		return string(text)
	}
	if got := ask(); !strings.Contains(got, "Paris") {
		t.Fatalf("it says %s", got)
	}
	for _, level := range []string{"1", "2"} {
		began := time.Now()
		if out := r.run("worker", "sleep", "--level", level, "w0"); !strings.Contains(out, "w0  asleep") {
			t.Fatalf("sleep prints %q", out)
		}
		fell := time.Since(began)
		began = time.Now()
		if got := ask(); !strings.Contains(got, "Paris") {
			t.Errorf("after a sleep of level %s it says %s", level, got)
		}
		t.Logf("level %s: asleep by order in %v, held and answered in %v", level, fell.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		until(t, 5*time.Second, "the next snapshot shows it awake", func() bool { w := r.worker("w0"); return w.State == api.Ready && w.Awake.After(began) })
	}
	// Somebody else puts it to sleep with a request on it: that one is not left to wait for ever.
	resp, err := http.Post(url+"/sleep?level=1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	until(t, time.Minute, "that is seen", func() bool { return r.worker("w0").State == api.Asleep })
	if got := ask(); !strings.Contains(got, "Paris") {
		t.Errorf("after somebody else's sleep it says %s", got)
	}
}
