package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r02 kills the API server of workers, and nothing else: what is left is an engine in a session of its own that holds the GPU
// (a lock on a file) and would do so for ever. No worker may be started before its GPU is free; the rest of its tree must be gone within 5 s.
func r02(ctx context.Context, t *trial) error {
	const workers, rounds = 5, 10
	vllm, err := t.script()
	if err != nil {
		return err
	}
	dir := filepath.Dir(vllm)
	if err := r02control(ctx, t, filepath.Join(dir, "control")); err != nil {
		return err
	}
	var config strings.Builder
	config.WriteString("models: [{name: toy}]\ncost: {gpu_hour: 1.00}\nworkers:\n")
	for i := range workers {
		fmt.Fprintf(&config, "  - {name: w%d, model: toy, stop_timeout: 1s, restart: {base: 10ms, max: 20ms, window: 1ms, tries: 100}, vllm: {bin: %q, path: %q, env: {SIMULATED_GPU: %q}}}\n", i, vllm, dir, r02gpu(dir, i))
	}
	e, err := t.engine(ctx, config.String())
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 30*time.Second); err != nil {
		return err
	}
	k := &killer{t: t, e: e}
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			for range rounds {
				if err := k.kill(ctx, fmt.Sprintf("w%d", i)); err != nil {
					t.failf("%v", err)
					return
				}
			}
		})
	}
	all.Wait()
	overlaps := 0
	for i := range workers {
		overlaps += taken(r02gpu(dir, i))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.exactly("kills", len(k.gone), workers*rounds)
	t.exactly("starts while the GPU was held", overlaps, 0)
	t.exactly("server processes begun before the tree was gone", k.early, 0)
	t.within("tree gone after, median", percentile(k.gone, 0.5), 5*time.Second)
	t.within("tree gone after, longest", percentile(k.gone, 1), 5*time.Second)
	t.note("ready again after, median", percentile(k.again, 0.5))
	t.exactly("kills without a cause in the crash book", k.unexplained, 0)
	return nil
}

func r02gpu(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("gpu%d", i)) }

// taken counts the engines that found a GPU taken.
func taken(gpu string) int {
	text, err := os.ReadFile(gpu + ".taken")
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

// r02control proves that two engines on one GPU are noticed.
func r02control(ctx context.Context, t *trial, gpu string) error {
	if _, err := t.serverWith(ctx, []string{"SIMULATED_GPU=" + gpu}); err != nil {
		return err
	}
	t.cleanup(func() {
		for _, pid := range marked("SIMULATED_GPU=" + gpu) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	// It answers before its engine has begun.
	if err := until(ctx, 20*time.Second, "the first engine has its GPU", func() bool { return locked(gpu) }); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	second := exec.CommandContext(ctx, t.bin, "sim", "--port", "0", "--start", "1m")
	second.WaitDelay = time.Second
	second.Env = append(os.Environ(), "SIMULATED_GPU="+gpu)
	if out, err := second.CombinedOutput(); err == nil || ctx.Err() != nil || !strings.Contains(string(out), "CUDA out of memory") {
		return fmt.Errorf("a second engine on one simulated GPU: %w: %s", err, out)
	}
	if taken(gpu) != 1 {
		return errors.New("two engines on one simulated GPU are not noticed")
	}
	return nil
}

// locked reports whether somebody holds a lock on a file, without trying it.
func locked(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	return ok && err == nil && strings.Contains(string(locks), fmt.Sprintf(":%d ", stat.Ino))
}

// killer is the state of r02.
type killer struct {
	t *trial
	e *engine

	mu          sync.Mutex
	gone, again []time.Duration
	early       int
	unexplained int
}

// kill kills a worker's API server and follows what becomes of its engine and of the worker.
func (k *killer) kill(ctx context.Context, name string) error {
	w, err := k.e.worker(ctx, name)
	if err != nil {
		return err
	}
	left := children(w.PID)
	if len(left) != 1 {
		return fmt.Errorf("%s: its server %d has the children %v, want the engine", name, w.PID, left)
	}
	killed := time.Now()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	for living(left[0]) {
		if time.Since(killed) > 30*time.Second {
			return fmt.Errorf("%s: its engine %d still lives", name, left[0])
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	freed := time.Now()
	var now api.Worker
	err = until(ctx, 60*time.Second, name+" is ready again", func() bool {
		now, err = k.e.worker(ctx, name)
		return err == nil && now.PID != w.PID && now.State == api.Ready
	})
	if err != nil {
		return err
	}
	s, err := k.e.snapshot(ctx)
	if err != nil {
		return err
	}
	cause := ""
	for _, c := range s.Crashes {
		if c.Worker == name && !c.Time.Before(killed.Add(-time.Second)) && strings.Contains(c.Exit, "killed") {
			cause = c.Cause
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = append(k.gone, freed.Sub(killed))
	k.again = append(k.again, time.Since(killed))
	if now.Started.Before(freed.Add(-50 * time.Millisecond)) { // the kernel's clock ticks every 10 ms, ours looked every 2 ms
		k.early++
		k.t.failf("%s: the next server was started %s before the engine was gone", name, freed.Sub(now.Started))
	}
	if cause == "" {
		k.unexplained++
		k.t.failf("%s: the crash book does not say why it ended: %+v", name, s.Crashes)
	}
	return nil
}

// living reports whether a process lives; one that has ended and was not waited for does not.
func living(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return len(f) > 0 && f[0] != "Z"
}
