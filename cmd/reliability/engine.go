package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// engine is a "vllmdeck serve" with folders of its own. It may be killed and started again.
type engine struct {
	t      *trial
	dir    string
	config string // file
	env    []string
	url    string // of the gateway, once it has started

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended

	control *api.Client
}

// engine writes a config and starts an engine with it, and waits until it answers. config is the
// text without listen and state: the engine listens on a free port of loopback.
func (t *trial) engine(ctx context.Context, config string) (*engine, error) {
	return t.engineWith(ctx, nil, config)
}

// engineWith is engine with variables added to its environment.
func (t *trial) engineWith(ctx context.Context, env map[string]string, config string) (*engine, error) {
	dir, err := os.MkdirTemp("", "rel") // short: the paths of sockets are limited
	if err != nil {
		return nil, err
	}
	e := &engine{t: t, dir: dir, config: filepath.Join(dir, "vllmdeck.yaml"), env: ownEnv(dir)}
	for name, value := range env {
		e.env = append(e.env, name+"="+value)
	}
	t.cleanup(e.remove)
	for _, name := range []string{"home", "run", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := e.write(config); err != nil {
		return nil, err
	}
	if e.control, err = api.Dial("unix:" + filepath.Join(e.state(), "engine.sock")); err != nil {
		return nil, err
	}
	return e, e.start(ctx)
}

func (e *engine) state() string { return filepath.Join(e.dir, "state") }

// write replaces the config; see trial.engine.
func (e *engine) write(config string) error {
	text := "listen: 127.0.0.1:0\nstate: " + e.state() + "\n" + config
	return os.WriteFile(e.config, []byte(text), 0o600)
}

// ownEnv is an environment in which nothing meets the user's files. XDG_RUNTIME_DIR is also the
// mark by which every process of an engine is found.
func ownEnv(dir string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "VLLMDECK_") })
	home := filepath.Join(dir, "home")
	return append(env,
		"HOME="+home, "TMPDIR="+filepath.Join(dir, "tmp"), "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"),
		"XDG_CONFIG_HOME="+filepath.Join(home, "config"), "XDG_STATE_HOME="+filepath.Join(home, "state"),
		"XDG_CACHE_HOME="+filepath.Join(home, "cache"), "VLLMDECK_CONFIG="+filepath.Join(dir, "vllmdeck.yaml"))
}

// start starts the engine's process and waits until it answers.
func (e *engine) start(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(e.dir, "serve.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(e.t.bin, "serve") //nolint:noctx // it ends with its trial, and not before its workers: see remove
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = e.env, e.dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	e.mu.Lock()
	e.cmd, e.done = cmd, done
	e.mu.Unlock()
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return until(ctx, 30*time.Second, "the engine answers", func() bool {
		s, err := e.snapshot(ctx)
		if err != nil || s.Engine.PID != cmd.Process.Pid {
			return false
		}
		e.url = s.Engine.URL
		return true
	})
}

// pid is that of the process that was started last.
func (e *engine) pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cmd.Process.Pid
}

// signal sends a signal to the engine's process alone.
func (e *engine) signal(s syscall.Signal) error { return syscall.Kill(e.pid(), s) }

// ended waits for the end of the engine's process.
func (e *engine) ended(ctx context.Context, limit time.Duration) error {
	e.mu.Lock()
	done := e.done
	e.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("the engine still runs after %s", limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *engine) snapshot(ctx context.Context) (*api.Snapshot, error) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	return e.control.Snapshot(ctx)
}

// worker is what the engine says of a worker.
func (e *engine) worker(ctx context.Context, name string) (api.Worker, error) {
	s, err := e.snapshot(ctx)
	if err != nil {
		return api.Worker{}, err
	}
	for _, w := range s.Workers {
		if w.Name == name {
			return w, nil
		}
	}
	return api.Worker{}, fmt.Errorf("no worker %s", name)
}

// ready waits until all workers are ready.
func (e *engine) ready(ctx context.Context, limit time.Duration) error {
	return until(ctx, limit, "all workers are ready", func() bool {
		s, err := e.snapshot(ctx)
		return err == nil && len(s.Workers) > 0 && !slices.ContainsFunc(s.Workers, func(w api.Worker) bool { return w.State != api.Ready })
	})
}

// settled waits until nothing is in flight and the ledger has it all on disk.
func (e *engine) settled(ctx context.Context, limit time.Duration) error {
	began := time.Now() // a snapshot from before knows nothing of the last requests
	return until(ctx, limit, "all requests are recorded", func() bool {
		s, err := e.snapshot(ctx)
		return err == nil && s.Time.After(began) && s.Traffic.InFlight == 0 && s.Engine.Ledger.Queued == 0
	})
}

// metric sums the samples of one family of the gateway's /metrics.
func (e *engine) metric(ctx context.Context, name string) (float64, error) {
	return metric(ctx, e.url, name)
}

func metric(ctx context.Context, url, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return 0, err
	}
	f := families[name]
	if f == nil {
		return 0, fmt.Errorf("%s/metrics has no %s", url, name)
	}
	sum := 0.0
	for _, m := range f.GetMetric() {
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
	}
	return sum, nil
}

// run runs a command of vllmdeck beside the engine and gives its stdout.
func (e *engine) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.t.bin, args...)
	cmd.Env, cmd.Dir = e.env, e.dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("vllmdeck %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), err
}

// remove ends all that the engine has started, and its folders. After a failure the logs are kept.
func (e *engine) remove() {
	if e.control != nil {
		e.control.Close()
	}
	mark := "XDG_RUNTIME_DIR=" + filepath.Join(e.dir, "run")
	deadline := time.Now().Add(10 * time.Second)
	for pids := marked(mark); len(pids) > 0; pids = marked(mark) {
		if time.Now().After(deadline) {
			e.t.failf("processes %v cannot be ended", pids)
			break
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-time.After(tick)
	}
	e.t.mu.Lock()
	failed := len(e.t.result.Failures) > 0
	e.t.mu.Unlock()
	if failed {
		e.t.logf("the engine's logs are kept in %s", e.dir)
		return
	}
	_ = os.RemoveAll(e.dir)
}

// tick is how often things are looked at that are waited for.
const tick = 20 * time.Millisecond

// until polls for a condition.
func until(ctx context.Context, limit time.Duration, what string, cond func() bool) error {
	began := time.Now()
	for !cond() {
		if time.Since(began) > limit {
			return fmt.Errorf("after %s still not: %s", limit, what)
		}
		if err := pause(ctx, tick); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// pause lets some time pass.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain reads a body to its end.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
