package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bareRig has no config, and nothing of the machine in its PATH.
func bareRig(t *testing.T) *rig {
	t.Helper()
	if found := detect(t.Context()).servers; len(found) > 0 {
		t.Skipf("NOT RUN: a vLLM server runs on this machine and would be offered: %s", found[0])
	}
	r := newRig(t, nil)
	if err := os.Mkdir(filepath.Join(r.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "PATH="+filepath.Join(r.dir, "bin"))
	return r
}

// withVLLM gives a rig a GPU and a vllm, both made of paper.
func withVLLM(t *testing.T, r *rig) *rig {
	t.Helper()
	for name, text := range map[string]string{
		"nvidia-smi": "#!/bin/sh\ncase \"$1\" in\n-L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)' ;;\n*) echo '0, GPU-1, NVIDIA H100 80GB HBM3, 81559, 1' ;;\nesac\n",
		"vllm":       "#!/bin/sh\nwhile :; do /bin/sleep 1; done\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, "bin", name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) userConfig() string {
	return filepath.Join(r.dir, "home", "config", "vllmdeck", "vllmdeck.yaml")
}

// output of what was started with start.
func (r *rig) said() string {
	text, err := os.ReadFile(filepath.Join(r.dir, "serve.out"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// TestBareWithoutATerminal is what "vllmdeck" alone does in each situation for a script or a
// service.
func TestBareWithoutATerminal(t *testing.T) {
	t.Run("an engine runs: its status", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, simConfig(1))
		r.serve()
		r.allReady()
		out := r.run()
		if !strings.HasPrefix(out, "vllmdeck ") || !strings.Contains(out, "w0") {
			t.Errorf("it prints %q, want the status", out)
		}
	})
	t.Run("a config is found: serves in the foreground", func(t *testing.T) {
		t.Parallel()
		for _, place := range []string{"VLLMDECK_CONFIG", "--config", "vllmdeck.yaml", "user"} {
			t.Run(place, func(t *testing.T) {
				t.Parallel()
				r := bareRig(t)
				r.write(simConfig(1)(filepath.Join(r.dir, "state")))
				var args []string
				switch place {
				case "VLLMDECK_CONFIG":
					r.env = append(r.env, "VLLMDECK_CONFIG="+r.config)
				case "--config":
					args = []string{"--config", r.config}
				case "user":
					if err := os.MkdirAll(filepath.Dir(r.userConfig()), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.Rename(r.config, r.userConfig()); err != nil {
						t.Fatal(err)
					}
				}
				engine := r.startIn(r.dir, args...)
				r.until(20*time.Second, "it serves", func() bool { _, err := r.trySnapshot(); return err == nil })
				s := r.allReady()
				if s.Engine.PID != engine.Process.Pid {
					t.Errorf("the engine is pid %d, not the command itself (%d)", s.Engine.PID, engine.Process.Pid)
				}
				if place == "--config" {
					// A restart keeps what it is: the command line alone would now find its own record.
					r.run("--config", r.config, "restart")
					if s := r.allReady(); s.Engine.PID != engine.Process.Pid {
						t.Errorf("after a restart the engine is pid %d, want %d", s.Engine.PID, engine.Process.Pid)
					}
				}
				engine.signal(t, syscall.SIGTERM)
				if code := engine.exit(t, 10*time.Second); code != exitDone {
					t.Errorf("exit code = %d, want %d", code, exitDone)
				}
				if processBirth(s.Workers[0].PID) == "" {
					t.Error("the worker went with the engine")
				}
			})
		}
	})
	for name, prepare := range map[string]func(*testing.T, *rig) *rig{
		"nothing is found: the demo": func(_ *testing.T, r *rig) *rig { return r },
		"a vllm is found: the demo":  withVLLM,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, bareRig(t))
			demo := r.start()
			r.until(20*time.Second, "it serves", func() bool { return len(r.demos()) == 1 })
			for _, want := range []string{"SIMULATED: serving on http://127.0.0.1:", "vllmdeck init", "vllmdeck setup cpu"} {
				r.until(5*time.Second, "it says "+want, func() bool { return strings.Contains(r.said(), want) })
			}
			if found := strings.Contains(r.said(), "A vLLM was found"); found != strings.HasPrefix(name, "a vllm") {
				t.Errorf("it says %q", r.said())
			}
			if exists(r.userConfig()) {
				t.Error("a config was written unasked")
			}
			demo.signal(t, syscall.SIGTERM)
			if code := demo.exit(t, 10*time.Second); code != exitDone {
				t.Errorf("exit code = %d, want %d", code, exitDone)
			}
			r.nothingLeft()
		})
	}
}
