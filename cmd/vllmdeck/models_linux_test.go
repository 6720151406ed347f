package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/modelcache/hubtest"
)

// smallModel is a model as a hub has it.
func smallModel() map[string][]byte {
	return map[string][]byte{"config.json": []byte("{}"), "tokenizer.json": []byte(`{"x":1}`), "model.safetensors": []byte(strings.Repeat("weights ", 20_000)), "model.gguf": []byte("x")}
}

// TestModelsCommands fetches, lists, cancels and removes as a user would: first by themselves, then by the
// engine that runs.
func TestModelsCommands(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	h.Add("org/m", smallModel())
	h.Add("org/needed", smallModel())
	for _, engine := range []bool{false, true} {
		t.Run(fmt.Sprintf("engine %v", engine), func(t *testing.T) {
			r := newRig(t, func(state string) string {
				return simConfig(1)(state) + "  - {name: big, model: big, start: false, vllm: {path: org/needed}}\n"
			})
			r.env = append(r.env, "HF_ENDPOINT="+h.URL)
			// The two models are no simulated and real worker of one model, so the config is good.
			if engine {
				r.serve()
			}
			list := func() (c api.Cache) {
				if err := json.Unmarshal([]byte(r.run("models", "list", "--json")), &c); err != nil {
					t.Fatal(err)
				}
				return c
			}
			model := func(name string) api.CacheModel {
				for _, m := range list().Models {
					if m.Name == name {
						return m
					}
				}
				return api.CacheModel{}
			}
			until(t, 20*time.Second, "what a worker needs is listed", func() bool { return len(model("org/needed").Workers) == 1 })
			if m := model("org/needed"); m.Size != 0 || m.Workers[0] != "big" {
				t.Errorf("org/needed = %+v, want it missing and needed by big", m)
			}
			out := r.run("models", "fetch", "org/m")
			if !strings.Contains(out, "org/m  done (156 KiB)") {
				t.Errorf("fetch prints %q", out)
			}
			var d api.Download
			if err := json.Unmarshal([]byte(r.run("models", "fetch", "--json", "org/needed")), &d); err != nil || d.State != "done" || d.Size != d.Done {
				t.Errorf("fetch --json = %+v, %v", d, err)
			}
			until(t, 20*time.Second, "both are listed", func() bool { return model("org/m").Size > 0 && model("org/needed").Size > 0 })
			out = r.run("models", "list")
			for _, want := range []string{"MODEL", "org/m ", "156 KiB", "big", "ok", "hub: ", "free"} {
				if !strings.Contains(out, want) {
					t.Errorf("list has no %q:\n%s", want, out)
				}
			}
			fails := func(want string, args ...string) {
				t.Helper()
				cmd := exec.Command(r.bin, args...)
				cmd.Env = r.env
				text, err := cmd.CombinedOutput()
				if err == nil || !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
					t.Errorf("%v: %v, %s; want it to fail with %q", args, err, text, want)
				}
			}
			fails("org/needed is needed by big", "models", "remove", "--yes", "org/needed")
			fails("say --yes", "models", "remove", "org/m")
			fails("no model \"org/none\"", "models", "remove", "--yes", "org/none")
			fails("no model org/none", "models", "fetch", "org/none")
			fails("is no name of a model", "models", "fetch", "../etc")
			if out := r.run("models", "remove", "--yes", "org/m"); !strings.Contains(out, "org/m  removed (156 KiB)") {
				t.Errorf("remove prints %q", out)
			}
			if _, err := os.Stat(filepath.Join(r.dir, "home/cache/huggingface/hub/models--org--m")); !os.IsNotExist(err) {
				t.Errorf("its folder: %v, want it gone", err)
			}
		})
	}
}

func TestADownloadGoesOnInTheEngineUntilItIsCancelled(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	h.Add("org/m", smallModel())
	held := make(chan struct{})
	h.Body = func(w http.ResponseWriter, file string, part []byte) {
		if file != "model.safetensors" {
			_, _ = w.Write(part)
			return
		}
		_, _ = w.Write(part[:1000])
		w.(http.Flusher).Flush()
		<-held
	}
	defer close(held)
	r := newRig(t, simConfig(1))
	r.env = append(r.env, "HF_ENDPOINT="+h.URL)
	r.serve()
	p := r.start("models", "fetch", "org/m")
	state := func() string {
		if c := r.snapshot().Cache; c != nil && len(c.Downloads) == 1 {
			return c.Downloads[0].State
		}
		return ""
	}
	until(t, 20*time.Second, "it runs", func() bool { return state() == "running" && len(h.Gets()) > 0 })
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if text, _ := os.ReadFile(filepath.Join(r.dir, "serve.out")); !strings.Contains(strings.Join(strings.Fields(string(text)), " "), "the engine goes on with it") {
		t.Errorf("the command says %s", text)
	}
	if got := state(); got != "running" {
		t.Errorf("after the command's end the download is %q, want running", got)
	}
	r.run("models", "cancel", "org/m")
	until(t, 20*time.Second, "it is cancelled", func() bool { return state() == "cancelled" })
}

// TestRealHubLibraryFindsWhatWasFetched asks the real huggingface_hub, offline, for a model that was fetched from a hub of the
// test's own, and has a real vLLM serve it by its name.
func TestRealVLLMServesWhatWasFetched(t *testing.T) {
	dir := realVLLM(t)
	h := hubtest.New(t)
	h.AddFolder("org/tiny", filepath.Join(dir, "models/tiny"))
	r := newRig(t, func(state string) string {
		return fmt.Sprintf(`listen: 127.0.0.1:0
state: %s
workers:
  - name: w0
    model: tiny
    start: false
    vllm:
      bin: %s/venv/bin/vllm
      path: org/tiny
      args: [--max-model-len=256, --max-num-seqs=4]
      env: {VLLM_TARGET_DEVICE: cpu, VLLM_CPU_KVCACHE_SPACE: "1", VLLM_CPU_OMP_THREADS_BIND: nobind, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1"}
`, state, dir)
	})
	r.env = append(r.env, "HF_ENDPOINT="+h.URL)
	r.serve()
	t.Log(r.run("models", "fetch", "org/tiny"))
	py := exec.Command(filepath.Join(dir, "venv/bin/python"), "-c", `
import os, huggingface_hub as h
p = h.snapshot_download("org/tiny", local_files_only=True)
print(sorted(os.listdir(p)))
i = h.scan_cache_dir()
assert not i.warnings, i.warnings
r, = i.repos
print(r.repo_id, r.size_on_disk, [sorted(v.refs) for v in r.revisions])
from transformers import AutoTokenizer
print(len(AutoTokenizer.from_pretrained("org/tiny").encode("Hello world")) > 0)
`)
	py.Env = append(r.env, "HF_HUB_OFFLINE=1")
	text, err := py.CombinedOutput()
	if err != nil {
		t.Fatalf("huggingface_hub: %v\n%s", err, text)
	}
	t.Logf("huggingface_hub: %s", text)
	var c api.Cache
	if err := json.Unmarshal([]byte(r.run("models", "list", "--json")), &c); err != nil || len(c.Models) != 1 {
		t.Fatalf("list = %+v, %v", c, err)
	}
	if want := fmt.Sprintf("org/tiny %d [['main']]", c.Models[0].Size); !strings.Contains(string(text), want) {
		t.Errorf("we say %d bytes of %+v; huggingface_hub does not", c.Models[0].Size, c.Models[0])
	}
	r.run("worker", "start", "w0")
	status, answer, err := r.post("/v1/completions", `{"model":"tiny","prompt":"Hello","max_tokens":4}`)
	if err != nil || status != http.StatusOK {
		t.Errorf("HTTP %d, %v: %s", status, err, answer)
	}
	t.Logf("ready: %+v", r.worker("w0").Phases)
}
