package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/config"
)

// place is a machine made of files.
type place struct {
	t    *testing.T
	root string
	host host
}

func newPlace(t *testing.T, pairs ...string) *place {
	t.Helper()
	root := t.TempDir()
	vars := map[string]string{"HOME": root, "PATH": root + "/bin"}
	for i := 0; i < len(pairs); i += 2 {
		vars[pairs[i]] = pairs[i+1]
	}
	p := &place{t: t, root: root}
	p.host = host{
		env:  func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		proc: filepath.Join(root, "no-proc"),
		run: func(context.Context, string, ...string) ([]byte, error) {
			return nil, errors.New("not expected to run")
		},
	}
	return p
}

func (p *place) file(name, text string, mode os.FileMode) string {
	p.t.Helper()
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// nvidia gives the machine GPUs as nvidia-smi would list them.
func (p *place) nvidia(query, list string) {
	p.file("bin/nvidia-smi", "", 0o755)
	p.host.run = func(_ context.Context, path string, args ...string) ([]byte, error) {
		if filepath.Base(path) == "nvidia-smi" && args[0] == "-L" {
			return []byte(list), nil
		}
		return []byte(query), nil
	}
}

func (p *place) model(dir, architecture string, bytes int) {
	p.file(dir+"/config.json", fmt.Sprintf(`{"architectures": [%q], "max_position_embeddings": 4096, "num_attention_heads": 8}`, architecture), 0o644)
	p.file(dir+"/model.safetensors", strings.Repeat("x", bytes), 0o644)
}

// check parses what would be written and gives it.
func check(t *testing.T, m machine) *config.Config {
	t.Helper()
	c, err := config.Parse("vllmdeck.yaml", m.configText(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("the written config is wrong:\n%v\n%s", err, m.configText())
	}
	return c
}

func TestBareMachineGetsASimulatedWorker(t *testing.T) {
	m := newPlace(t).host.detect(t.Context())
	if m.canServe() || len(m.found()) > 0 {
		t.Errorf("canServe %v, found %q, want nothing", m.canServe(), m.found())
	}
	c := check(t, m)
	if len(c.Workers) != 1 || c.Workers[0].Sim == nil {
		t.Errorf("workers = %+v, want one simulated", c.Workers)
	}
	if text := string(m.configText()); !strings.Contains(text, "SIMULATED") || !strings.Contains(text, "vllmdeck setup cpu") {
		t.Errorf("the config does not say that it is simulated, or what to do:\n%s", text)
	}
}

func TestGPUHostServesTheLatestCachedModel(t *testing.T) {
	p := newPlace(t)
	p.nvidia("0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 70000\n1, GPU-b, NVIDIA H100 80GB HBM3, 81559, 3\n", "")
	bin := p.file("bin/vllm", "", 0o755)
	old, latest := ".cache/huggingface/hub/models--org--old/snapshots/1", ".cache/huggingface/hub/models--Qwen--Qwen3--0.6B/snapshots/abc"
	p.model(old, "LlamaForCausalLM", 10)
	p.model(latest, "Qwen3ForCausalLM", 10)
	p.model(".cache/huggingface/hub/models--org--embedder/snapshots/1", "BertModel", 10)
	hour := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(p.root, old), hour, hour); err != nil {
		t.Fatal(err)
	}
	m := p.host.detect(t.Context())
	if !m.canServe() || len(m.models) != 2 {
		t.Fatalf("canServe %v, models %v, want two generators", m.canServe(), m.models)
	}
	w := check(t, m).Workers[0]
	want := config.VLLM{Bin: bin, Path: "Qwen/Qwen3--0.6B", Args: []string{"--max-model-len=auto"}, GPUs: []string{"1"}, Env: map[string]string{"HF_HUB_OFFLINE": "1"}}
	if !reflect.DeepEqual(*w.VLLM, want) {
		t.Errorf("worker = %+v\nwant %+v: the free GPU, the latest model", *w.VLLM, want)
	}
}

func TestGPUHostWithoutModelsFetchesOne(t *testing.T) {
	p := newPlace(t, "HF_HOME", "/data/hf")
	p.nvidia("0, GPU-a, NVIDIA GB10, [N/A], [N/A]\n", "")
	p.file("bin/vllm", "", 0o755)
	m := p.host.detect(t.Context())
	w := check(t, m).Workers[0]
	if !m.canServe() || w.VLLM.Path != hubDefault || w.VLLM.Env["HF_HOME"] != "/data/hf" || w.VLLM.Env["HF_HUB_OFFLINE"] != "" {
		t.Errorf("canServe %v, worker %+v", m.canServe(), w.VLLM)
	}
	if !strings.Contains(string(m.configText()), "fetched from the hub") {
		t.Error("the config does not say that the model is fetched")
	}
}

func TestLargeModelIsSpread(t *testing.T) {
	m := machine{vllms: []vllmBin{{path: "/bin/vllm"}}, models: []localModel{{name: "o/big", path: "o/big", hub: true, bytes: 140 << 30, heads: 64}}}
	for i := range 4 {
		m.gpus = append(m.gpus, gpu{id: strconv.Itoa(i), total: 80 << 30})
	}
	w := check(t, m).Workers[0]
	if got := strings.Join(w.VLLM.Args, " "); !strings.Contains(got, "--tensor-parallel-size=4") || len(w.VLLM.GPUs) != 4 {
		t.Errorf("args %q, GPUs %q, want four", got, w.VLLM.GPUs)
	}
	m.models[0].heads = 6 // 4 does not divide it
	if w := check(t, m).Workers[0]; w.VLLM.Path != hubDefault {
		t.Errorf("path = %q, want the small default: 6 heads on 2 GPUs are not enough memory", w.VLLM.Path)
	}
}

func TestBusyGPUIsSaid(t *testing.T) {
	m := machine{vllms: []vllmBin{{path: "/bin/vllm"}}, gpus: []gpu{{id: "0", total: 80 << 30, used: 40 << 30}}}
	if text := string(m.configText()); !strings.Contains(text, "GPU 0 is in use (40 of 80 GiB)") || !strings.Contains(text, "--gpu-memory-utilization=0.47") {
		t.Errorf("not said that the GPU is in use:\n%s", text)
	}
}

func TestCPUSetupIsFound(t *testing.T) {
	for name, pairs := range map[string][]string{"home": nil, "XDG_CACHE_HOME": {"XDG_CACHE_HOME", ""}} {
		t.Run(name, func(t *testing.T) {
			dir := ".cache"
			p := newPlace(t)
			if pairs != nil {
				dir = "xdg"
				root := p.root
				p.host.env = func(n string) (string, bool) {
					return map[string]string{"HOME": "/nowhere", "XDG_CACHE_HOME": root + "/xdg"}[n], true
				}
			}
			dir += "/vllmdeck/vllm-cpu"
			bin := p.file(dir+"/venv/bin/vllm", "", 0o755)
			p.file(dir+"/venv/lib/python3.11/site-packages/vllm-0.32.0+cpu.dist-info/METADATA", "", 0o644)
			p.model(dir+"/models/smollm2-135m-instruct", "LlamaForCausalLM", 100)
			p.model(dir+"/models/tiny", "LlamaForCausalLM", 10)
			m := p.host.detect(t.Context())
			if len(m.vllms) != 1 || m.vllms[0].version != "0.32.0" || !m.vllms[0].cpu || !m.canServe() {
				t.Fatalf("vllms = %+v, canServe %v", m.vllms, m.canServe())
			}
			c := check(t, m)
			v := c.Workers[0].VLLM
			if v.Bin != bin || v.Path != filepath.Join(p.root, dir, "models/smollm2-135m-instruct") || v.Env["VLLM_TARGET_DEVICE"] != "cpu" || len(v.GPUs) > 0 {
				t.Errorf("worker = %+v", v)
			}
			if c.Cost.HostHour != nil || !strings.Contains(string(m.configText()), "#host_hour:") {
				t.Error("host_hour must stand there as a comment: nobody said what the machine costs")
			}
			if len(c.Warnings) > 0 {
				t.Errorf("warnings = %q", c.Warnings)
			}
		})
	}
}

func TestVLLMOfAVirtualEnvironmentAndOnceOnly(t *testing.T) {
	p := newPlace(t)
	bin := p.file("venv/bin/vllm", "", 0o755)
	p.file("venv/lib/python3.12/site-packages/vllm-0.31.1.dist-info/METADATA", "", 0o644)
	if err := os.MkdirAll(filepath.Join(p.root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(p.root, "bin/vllm")); err != nil {
		t.Fatal(err)
	}
	env := p.host.env
	p.host.env = func(n string) (string, bool) {
		if n == "VIRTUAL_ENV" {
			return filepath.Join(p.root, "venv"), true
		}
		return env(n)
	}
	got := p.host.vllms()
	if len(got) != 1 || got[0].version != "0.31.1" || got[0].cpu {
		t.Errorf("vllms = %+v, want one, 0.31.1, not for the CPU", got)
	}
	m := p.host.detect(t.Context())
	if m.canServe() {
		t.Error("canServe without a GPU, want not")
	}
	if c := check(t, m); c.Workers[0].VLLM == nil || !strings.Contains(string(m.configText()), "none was found here") {
		t.Errorf("want the vLLM proposed with a warning:\n%s", m.configText())
	}
}

func TestBrokenDownloadsAreLeftOut(t *testing.T) {
	p := newPlace(t)
	hub := ".cache/huggingface/hub/"
	p.model(hub+"models--o--whole/snapshots/1", "LlamaForCausalLM", 10)
	p.model(hub+"models--o--older/snapshots/1", "LlamaForCausalLM", 10)
	p.file(hub+"models--o--nothing/snapshots/1/config.json", `{"architectures": ["LlamaForCausalLM"]}`, 0o644)
	p.file(hub+"models--o--junk/snapshots/1/config.json", `{`, 0o644)
	p.file(hub+"models--o--half/snapshots/1/config.json", `{"architectures": ["LlamaForCausalLM"]}`, 0o644)
	p.file(hub+"models--o--half/snapshots/1/model.safetensors.index.json", `{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}`, 0o644)
	p.file(hub+"models--o--half/snapshots/1/1.safetensors", "x", 0o644)
	p.model(hub+"models--o--link/snapshots/1", "LlamaForCausalLM", 10)
	link := filepath.Join(p.root, hub, "models--o--link/snapshots/1/model.safetensors")
	if err := errors.Join(os.Remove(link), os.Symlink("../../blobs/gone", link)); err != nil {
		t.Fatal(err)
	}
	p.file(hub+"models--o--older/refs/main", "gone\n", 0o644)
	var got []string
	for _, m := range hubModels(p.host.hubCache()) {
		got = append(got, m.name)
	}
	if len(got) != 2 || !strings.Contains(strings.Join(got, " "), "o/whole") || !strings.Contains(strings.Join(got, " "), "o/older") {
		t.Errorf("models = %q, want o/whole and o/older", got)
	}
}

func TestNvidiaSMI(t *testing.T) {
	for name, c := range map[string]struct{ query, list, visible, want string }{
		"two":          {"0, GPU-a, NVIDIA GeForce RTX 4080 SUPER, 32760, 1226\n1, GPU-b, X, 32760, 18\n", "", "", "0 1"},
		"no numbers":   {"0, GPU-a, NVIDIA GB10, [N/A], [N/A]\n", "", "", "0"},
		"lost":         {"0, GPU-a, [GPU is lost], [GPU is lost], [GPU is lost]\n1, GPU-b, X, 5, 1\n", "", "", "1"},
		"comma":        {"0, GPU-a, \"X, Y\", 5, 1\n", "", "", "0"},
		"no devices":   {"No devices were found\n", "", "", ""},
		"driver fault": {"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "", "", ""},
		"visible":      {"0, GPU-a, X, 5, 1\n1, GPU-b11, X, 5, 1\n2, GPU-c, X, 5, 1\n", "", "2,GPU-b1", "2 1"},
		"none visible": {"0, GPU-a, X, 5, 1\n", "", "-1", ""},
		"MIG": {"0, GPU-2, NVIDIA A100 80GB PCIe, 81920, 1\n1, GPU-3, X, 5, 1\n", "GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-2)\n" +
			"  MIG 1g.10gb     Device  0: (UUID: MIG-c1d3d074)\n  MIG 1g.10gb     Device  1: (UUID: MIG-84e0b369)\nGPU 1: X (UUID: GPU-3)\n", "", "MIG-c1d3d074 MIG-84e0b369 1"},
	} {
		t.Run(name, func(t *testing.T) {
			var pairs []string
			if c.visible != "" {
				pairs = []string{"CUDA_VISIBLE_DEVICES", c.visible}
			}
			p := newPlace(t, pairs...)
			p.nvidia(c.query, c.list)
			list, _ := p.host.gpus(t.Context())
			var got []string
			for _, g := range list {
				got = append(got, g.id)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("GPUs = %q, want %q", got, c.want)
			}
		})
	}
}

func TestAMDToolsMeanAGPU(t *testing.T) {
	p := newPlace(t)
	p.file("bin/rocm-smi", "", 0o755)
	if list, _ := p.host.gpus(t.Context()); len(list) != 1 || !strings.HasPrefix(list[0].name, "AMD") {
		t.Errorf("gpus = %v, want one of AMD", list)
	}
}

// A driver in trouble hangs nvidia-smi, and killing it does not help.
func TestHangingNvidiaSMIDoesNotHangUs(t *testing.T) {
	p := newPlace(t)
	p.file("bin/nvidia-smi", "#!/bin/sh\nexec sleep 60\n", 0o755)
	p.host.run = output
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	list, note := p.host.gpus(ctx)
	if took := time.Since(start); took > 10*time.Second || len(list) > 0 || !strings.Contains(note, "does not answer") {
		t.Errorf("after %v: %v, note %q", took, list, note)
	}
}

// vllm answers as a recorded vLLM 0.32.0 does.
func vllm(t *testing.T, change func(w http.ResponseWriter, r *http.Request) bool) (port int) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change != nil && change(w, r) {
			return
		}
		switch r.URL.Path {
		case "/version":
			http.ServeFile(w, r, "testdata/http/version.json")
		case "/v1/models":
			http.ServeFile(w, r, "testdata/http/models.json")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	_, text, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err = strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestRunningServersAreAttached(t *testing.T) {
	p := newPlace(t)
	first := vllm(t, nil)
	second := vllm(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/models" {
			return false
		}
		fmt.Fprint(w, `{"data": [{"id": "org/a", "owned_by": "vllm"}, {"id": "a", "owned_by": "vllm"}, {"id": "lora", "owned_by": "vllm", "parent": "org/a"}]}`)
		return true
	})
	locked := vllm(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/models" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	p.host.ports = []int{first, second, locked}
	p.nvidia("0, GPU-a, X, 81559, 3\n", "")
	p.file("bin/vllm", "", 0o755)
	m := p.host.detect(t.Context())
	c := check(t, m)
	if !m.canServe() || len(c.Workers) != 2 {
		t.Fatalf("canServe %v, workers %+v, want two attached", m.canServe(), c.Workers)
	}
	for i, port := range []int{first, second} {
		if got, want := c.Workers[i].Attach, fmt.Sprintf("http://127.0.0.1:%d", port); got != want {
			t.Errorf("attach = %q, want %q", got, want)
		}
	}
	if c.Workers[0].Model != "tiny" || c.Workers[1].Model != "org/a" || !reflect.DeepEqual(c.Model("org/a").Aliases, []string{"a"}) {
		t.Errorf("workers = %+v, models = %+v", c.Workers, c.Models)
	}
	text := string(m.configText())
	for _, part := range []string{"#  api_key: env:VLLM_API_KEY", fmt.Sprintf("#  attach: http://127.0.0.1:%d", locked), "#  vllm:", "Could be launched"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}
}

func TestOneServerOnOneGPUUsesIt(t *testing.T) {
	m := machine{gpus: []gpu{{id: "0"}}, servers: []server{{url: "http://127.0.0.1:8000", names: []string{"m"}}}}
	if c := check(t, m); c.Workers[0].NGPUs != 1 {
		t.Errorf("gpus = %d, want 1", c.Workers[0].NGPUs)
	}
	m.servers = append(m.servers, server{url: "http://127.0.0.1:8001", names: []string{"m"}})
	if c := check(t, m); c.Workers[0].NGPUs != 0 || c.Workers[1].NGPUs != 0 {
		t.Error("two servers share a GPU: what each uses is not known")
	}
}

func TestOtherServersAreLeftAlone(t *testing.T) {
	for name, change := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"not vLLM": func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, `{"version": "1.0", "data": [{"id": "x", "owned_by": "llamacpp"}]}`)
			return true
		},
		"HTML": func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, "<html>"); return true },
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/version", http.StatusFound)
			return true
		},
		"escape": func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, `{"version": "0.3\u001b[31m", "data": [{"id": "x", "owned_by": "vllm"}]}`)
			return true
		},
		"evil name": func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, `{"version": "0.32.0", "data": [{"id": "x\nworkers: []", "owned_by": "vllm"}]}`)
			return true
		},
		"endless": func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.host.ports = []int{vllm(t, change)}
			if got := p.host.servers(t.Context()); len(got) > 0 {
				t.Errorf("servers = %+v, want none", got)
			}
		})
	}
}

func TestOnlyLikelyPortsAreAsked(t *testing.T) {
	p := newPlace(t)
	row := func(addr, state, inode string) string {
		return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000  1000        0 %s 1 0 100 0 0 10 0\n", addr, state, inode)
	}
	p.host.proc = filepath.Join(p.root, "proc")
	p.host.ports = []int{8000, 8001, 8002}
	p.file("proc/net/tcp", "  sl  local_address ...\n"+
		row("0100007F:1F40", "0A", "1")+ // 8000, a stranger's
		row("0100007F:1F41", "01", "2")+ // 8001, a connection, not a listener
		row("0101A8C0:1F42", "0A", "3")+ // 8002, not on loopback
		row("0100007F:2328", "0A", "4")+ // 9000, vllm of ours
		row("0100007F:2329", "0A", "5")+ // 9001, something else of ours
		row("0100007F:4E20", "0A", "6"), 0o644) // 20000, a worker of vllmdeck
	p.file("proc/net/tcp6", row(strings.Repeat("0", 32)+":2AF8", "0A", "7"), 0o644) // 11000, vllm on every interface
	process := func(pid, cmdline, environ, inode string) {
		p.file("proc/"+pid+"/cmdline", strings.ReplaceAll(cmdline, " ", "\x00"), 0o644)
		p.file("proc/"+pid+"/environ", environ, 0o644)
		if err := errors.Join(os.MkdirAll(filepath.Join(p.host.proc, pid, "fd"), 0o755), os.Symlink("socket:["+inode+"]", filepath.Join(p.host.proc, pid, "fd/3"))); err != nil {
			t.Fatal(err)
		}
	}
	process("10", "/usr/bin/python3 /opt/venv/bin/vllm serve o/m", "A=1", "4")
	process("11", "/usr/bin/redis vllm-cache", "", "5")
	process("12", "/usr/bin/python3 /opt/venv/bin/vllm serve o/m", "A=1\x00VLLMDECK_WORKER_ID=w0/x", "6")
	process("13", "python -m vllm.entrypoints.launchers.api_server.entry", "", "7")
	if got, want := p.host.candidates(), []int{8000, 9000, 11000}; !reflect.DeepEqual(got, want) {
		t.Errorf("ports = %v, want %v", got, want)
	}
}

func TestWriteConfigNeverHalf(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "c.yaml")
	if err := writeConfig(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(path, []byte("two"), false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("second write = %v, want a refusal that names --force", err)
	}
	link := filepath.Join(dir, "link.yaml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(link, []byte("three"), true); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "three" {
		t.Errorf("file = %q, want three, through the link", got)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "sub", ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
