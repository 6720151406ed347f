package config

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// workerName is also a folder, a socket and a label.
var workerName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// engineLog is what Source.Log calls the engine's own log, so no worker can be called so.
const engineLog = "engine"

func (r *report) worker(c *Config, i int) {
	w, p := &c.Workers[i], fmt.Sprintf("workers[%d]", i)
	switch {
	case w.Name == "":
		r.missing(p, "name", "name: of lower-case letters, digits and -, e.g. w0")
	case !workerName.MatchString(w.Name):
		r.problem(p+".name", "use up to 32 lower-case letters, digits and -, e.g. w0", "the name %q cannot be used", w.Name)
	case w.Name == engineLog:
		r.problem(p+".name", "name it differently", "engine is the name of the engine's own log")
	}
	for j := range i {
		if c.Workers[j].Name == w.Name && w.Name != "" {
			r.problem(p+".name", "name each worker differently", "workers[%d] has the name %q too", j, w.Name)
			break
		}
	}
	if w.Model == "" {
		r.missing(p, "model", "model: the name that clients ask for")
	}
	r.kind(w, p)
	if w.Port < 0 || w.Port > 65535 {
		r.problem(p+".port", "leave it out for a free one", "a port is a number from 1 to 65535, got %d", w.Port)
	}
	r.positive(p+".start_timeout", w.StartTimeout)
	if w.GPUWait < 0 {
		r.problem(p+".gpu_wait", "the default is 2m; 0s: it is not waited for", "cannot be less than 0s")
	}
	r.restart(w.Restart, p+".restart")
	if w.VLLM != nil {
		r.vllm(w.VLLM, p+".vllm")
		if w.NGPUs != 0 {
			r.problem(p+".gpus", "write which ones under vllm, e.g. vllm: {gpus: [0]}, and drop this", "gpus beside vllm: the number is for servers that run already")
		}
	}
	if w.NGPUs < 0 || w.NGPUs > 1024 {
		r.problem(p+".gpus", "it is the number of GPUs the server uses", "want 0 to 1024, got %d", w.NGPUs)
	}
	if w.Attach != "" {
		r.attach(w, p)
	}
	if w.Sleep != nil {
		r.sleep(w, p+".sleep")
	}
	if s := w.Sim; s != nil {
		if s.MaxSeqs < 1 {
			r.problem(p+".sim.max_num_seqs", "the default is 32", "must be at least 1")
		}
		if s.MaxLen < 16 {
			r.problem(p+".sim.max_model_len", "the default is 8192", "must be at least 16")
		}
	}
}

// kind checks that a worker is exactly one of the three.
func (r *report) kind(w *Worker, p string) {
	var kinds []string
	if w.VLLM != nil || r.broken[p+".vllm"] {
		kinds = append(kinds, "vllm")
	}
	if w.Attach != "" || r.broken[p+".attach"] {
		kinds = append(kinds, "attach")
	}
	if w.Sim != nil || r.broken[p+".sim"] {
		kinds = append(kinds, "sim")
	}
	switch {
	case len(kinds) == 0 && r.places[p+".sim"].line > 0:
		r.problem(p+".sim", "write sim: {}", "sim is empty")
	case len(kinds) == 0:
		r.problem(p, "add vllm: (start one), attach: URL (use one that runs) or sim: {} (simulate one)", "%s says neither vllm nor attach nor sim", cmp.Or(w.Name, "the worker"))
	case len(kinds) > 1:
		r.problem(p+"."+kinds[1], "keep one, or make two workers of it", "%s says both %s", cmp.Or(w.Name, "the worker"), strings.Join(kinds, " and "))
	}
}

func (r *report) restart(s Restart, p string) {
	if s.Policy != OnFailure && s.Policy != Never {
		hint := "write on-failure or never"
		if near := nearest(s.Policy, []string{OnFailure, Never}); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		r.problem(p+".policy", hint, "unknown policy %q", s.Policy)
	}
	r.positive(p+".base", s.Base)
	r.positive(p+".window", s.Window)
	if s.Max < s.Base && !r.broken[p+".max"] && !r.broken[p+".base"] {
		r.problem(p+".max", "raise max or lower base", "the longest wait (%s) is shorter than the first (%s)", s.Max, s.Base)
	}
	if s.Tries < 1 {
		r.problem(p+".tries", "policy: never starts it once and no more", "must be at least 1")
	}
}

// sleep checks the rules by which a worker sleeps.
func (r *report) sleep(w *Worker, p string) {
	s := w.Sleep
	if s.Level != 1 && s.Level != 2 {
		r.problem(p+".level", "1 keeps the weights in host memory and wakes fast, 2 loads them anew", "the level is 1 or 2, got %d", s.Level)
	}
	if s.Share != "" && !keyName.MatchString(s.Share) {
		r.problem(p+".share", "use letters, digits, _ . and -, e.g. gpu0", "the name %q cannot be used", s.Share)
	}
	if w.VLLM == nil {
		return
	}
	if v, ok := w.VLLM.Env["VLLM_SERVER_DEV_MODE"]; ok && v != "1" {
		r.problem(p, "drop VLLM_SERVER_DEV_MODE from env, or sleep", "sleep needs VLLM_SERVER_DEV_MODE=1: it is set where nothing else is")
	}
	if slices.ContainsFunc(w.VLLM.Args, func(a string) bool {
		return strings.HasPrefix(strings.ReplaceAll(a, "_", "-"), "--no-enable-sleep-mode")
	}) {
		r.problem(p, "drop --no-enable-sleep-mode from args, or sleep", "sleep needs --enable-sleep-mode")
	}
}

func (r *report) attach(w *Worker, p string) {
	if u := r.baseURL(w.Attach, p+".attach", false); u != nil {
		w.Attach = u.Scheme + "://" + u.Host
	}
	if w.Port != 0 {
		r.problem(p+".port", "the port is part of attach; drop this key", "port beside attach")
	}
}

var gpuUUID = regexp.MustCompile(`^(GPU|MIG)-[A-Za-z0-9/-]{4,80}$`)

func (r *report) vllm(v *VLLM, p string) {
	if v.Path == "" {
		r.missing(p, "path", "path: the model's folder, or a hub name such as Qwen/Qwen3-0.6B")
	}
	if v.Bin == "" {
		r.problem(p+".bin", "leave it out for vllm in PATH", "bin is empty")
	}
	r.args(v, p+".args")
	seen := map[string]bool{}
	for i, g := range v.GPUs {
		at := fmt.Sprintf("%s.gpus[%d]", p, i)
		n, err := strconv.Atoi(g)
		switch {
		case strings.Contains(g, ","):
			r.problem(at, "write gpus: ["+strings.Join(strings.Fields(strings.ReplaceAll(g, ",", " ")), ", ")+"]", "several GPUs in one text")
		case (err != nil || n < 0) && !gpuUUID.MatchString(g):
			r.problem(at, "nvidia-smi -L lists them; write an index such as 0, or GPU-… or MIG-…", "%q is not a GPU", g)
		case seen[g]:
			r.problem(at, "name each once", "GPU %s is here twice", g)
		}
		seen[g] = true
	}
	for name := range v.Env {
		r.variable(v, name, join(p+".env", name))
	}
}

// variable checks one that a launched server gets.
func (r *report) variable(v *VLLM, name, p string) {
	switch {
	case !envName.MatchString(name):
		r.problem(p, "use letters, digits and _", "%q is no name of a variable", name)
	case strings.ContainsRune(v.Env[name], 0):
		r.problem(p, "", "a variable cannot hold a NUL character")
	case strings.HasPrefix(name, "VLLM_DECK"), strings.HasPrefix(name, "VLLMDECK"):
		// VLLM_ names that vLLM does not know fail with --fail-on-environ-validation, and
		// VLLMDECK_ names mark our own processes.
		r.problem(p, "choose another name", "names with this beginning are kept for vllmdeck itself")
	case name == "PROMETHEUS_MULTIPROC_DIR":
		// vLLM sets it for itself with several API servers; a folder that outlives a start
		// mixes the counters of dead processes into /metrics.
		r.problem(p, "drop it: vLLM makes one by itself where it needs one", "this would mix counters of dead processes into the worker's metrics")
	case len(v.GPUs) > 0 && slices.Contains([]string{"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}, name):
		r.problem(p, "keep gpus:, drop the variable", "%s and gpus: say the same thing twice", name)
	case name == "CUDA_VISIBLE_DEVICES":
		r.warn(p, "write gpus: ["+v.Env[name]+"] instead", "without gpus: the cost of these GPUs is not counted")
	}
}

// ports checks that no two servers of ours want one port.
func (r *report) ports(c *Config) {
	owner := map[int]string{}
	listenHost, listenPort, _ := net.SplitHostPort(c.Listen)
	if n, _ := strconv.Atoi(listenPort); n > 0 {
		owner[n] = "the gateway (listen)"
	}
	for i, w := range c.Workers {
		if w.Port == 0 || w.Attach != "" {
			continue
		}
		if who, taken := owner[w.Port]; taken {
			r.problem(fmt.Sprintf("workers[%d].port", i), "leave port out for a free one", "port %d belongs to %s", w.Port, who)
			continue
		}
		owner[w.Port] = w.Name
	}
	urls := map[string]string{}
	for i, w := range c.Workers {
		u, err := url.Parse(w.Attach)
		if w.Attach == "" || err != nil {
			continue
		}
		p := fmt.Sprintf("workers[%d].attach", i)
		port, _ := strconv.Atoi(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
		key := net.JoinHostPort(u.Hostname(), strconv.Itoa(port))
		who, taken := owner[port]
		switch {
		case urls[key] != "":
			r.problem(p, "attach each server once: its requests and its cost would count twice", "%s attaches to %s too", urls[key], key)
		case taken && (loopback(u.Hostname()) || u.Hostname() == listenHost):
			r.problem(p, "attach to a server that vllmdeck does not start", "%s is the address of %s", key, who)
		}
		urls[key] = w.Name
	}
}

// gpus warns of one GPU given to two servers. That can be meant: two small models fit.
func (r *report) gpus(c *Config) {
	owner, sleeps := map[string]string{}, map[string]bool{}
	for i, w := range c.Workers {
		sleeps[w.Name] = w.Sleep != nil // those take turns
		if w.VLLM == nil {
			continue
		}
		for j, g := range w.VLLM.GPUs {
			if who, taken := owner[g]; taken && who != w.Name && (w.Sleep == nil || !sleeps[who]) {
				r.warn(fmt.Sprintf("workers[%d].vllm.gpus[%d]", i, j),
					"each vLLM takes 92 % of a GPU's memory unless --gpu-memory-utilization or --kv-cache-memory-bytes says less",
					"GPU %s is given to %s and to %s", g, who, w.Name)
			}
			owner[g] = w.Name
		}
	}
}
