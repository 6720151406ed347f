package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestRealVLLMFailedStarts has a real server fail in each way that was recorded, and asks what
// the operator is told. Two at a time: each takes vLLM a quarter of a minute.
func TestRealVLLMFailedStarts(t *testing.T) {
	dir := realVLLM(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	tiny := filepath.Join(dir, "models", "tiny")
	cases := []struct {
		name, path, args, space, port string
		exit                          string // "" where vLLM is not even started
		cause, remedy                 string // parts of them
	}{
		{name: "flag", path: tiny, args: "--no-such-flag", exit: "exit 2", cause: "--no-such-flag", remedy: "args:"},
		{name: "folder", path: "/models/nothere", cause: "/models/nothere", remedy: ""},
		{name: "uncached", path: "nobody/nothing", cause: "nobody/nothing is not in the cache", remedy: ""},
		{name: "length", path: tiny, args: "--max-model-len=999999", exit: "exit 1", cause: "999999 is more than the model allows", remedy: "--max-model-len="},
		{name: "sleep", path: tiny, args: "--enable-sleep-mode", exit: "exit 1", cause: "no sleep mode", remedy: "--enable-sleep-mode"},
		{name: "memory", path: tiny, args: "--gpu-memory-utilization=0.999", space: `""`, exit: "exit 1", cause: "are wanted (utilization 0.999)", remedy: "VLLM_CPU_KVCACHE_SPACE"},
		{name: "port", path: tiny, port: strconv.Itoa(taken.Addr().(*net.TCPAddr).Port), cause: "port", remedy: ""},
	}
	r := newRig(t, func(state string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\nmodels: [{name: m}]\ncost: {host_hour: 0.05}\nworkers:\n", state)
		for _, c := range cases {
			env := `VLLM_TARGET_DEVICE: cpu, VLLM_CPU_OMP_THREADS_BIND: nobind, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1", VLLM_CPU_KVCACHE_SPACE: ` + cmp.Or(c.space, `"1"`)
			fmt.Fprintf(&b, "  - name: %s\n    model: m\n    start: false\n    restart: {policy: never}\n", c.name)
			if c.port != "" {
				fmt.Fprintf(&b, "    port: %s\n", c.port)
			}
			fmt.Fprintf(&b, "    vllm: {bin: %s/venv/bin/vllm, path: %s, args: [%s], env: {%s}}\n", dir, c.path, c.args, env)
		}
		return b.String()
	})
	r.serve()

	places := make(chan struct{}, 2)
	var all sync.WaitGroup
	for _, c := range cases {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			began := time.Now()
			if out, err := r.try("worker", "start", c.name, "--wait=0"); err != nil {
				t.Errorf("%s: worker start: %v\n%s", c.name, err, out)
				return
			}
			var w api.Worker
			for time.Since(began) < 3*time.Minute && t.Context().Err() == nil {
				if s, err := r.trySnapshot(); err == nil {
					if w, _ = findWorker(s, c.name); w.State == api.Failed {
						break
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Logf("%s: failed after %s (%s)\n  %s\n  %s", c.name, time.Since(began).Round(time.Second), w.Exit, w.Error, w.Remedy)
			if w.State != api.Failed {
				t.Errorf("%s: state %s after three minutes, want failed", c.name, w.State)
			}
			if w.Exit != c.exit || !strings.Contains(w.Error, c.cause) || !strings.Contains(w.Remedy, c.remedy) {
				t.Errorf("%s: exit %q, cause %q, remedy %q; want %q, %q and %q in them", c.name, w.Exit, w.Error, w.Remedy, c.exit, c.cause, c.remedy)
			}
			if c.exit == "" && time.Since(began) > 15*time.Second {
				t.Errorf("%s took %s: it is to be seen before vLLM is started", c.name, time.Since(began))
			}
		})
	}
	all.Wait()
	r.run("stop", "--yes")
	if pids := r.processes(); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

// TestRealVLLMDeaths kills the inner processes of a real server and drains it under a stream.
func TestRealVLLMDeaths(t *testing.T) {
	dir := realVLLM(t)
	r := newRig(t, realConfig(dir, "tiny", 1))
	r.serve()
	for i, victim := range []string{"VLLM::EngineCor", "VLLM::Worker"} { // as comm has them, cut to 15 bytes
		r.awaitReady("w0")
		w := r.worker("w0")
		marker := workerMarker(t, w.PID)
		s := r.stream(r.snapshot().Engine.URL, 900)
		s.flows(t)
		pid := childNamed(t, marker, victim)
		killed := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, 20*time.Second, "the tree of the killed "+victim+" is gone", func() bool { return len(markedProcesses(t, marker)) == 0 })
		took := time.Since(killed)
		if ended := s.wait(t, 4*time.Minute); ended != "told" && ended != "whole" {
			t.Errorf("%s killed: the client has %s; want the whole answer, or to be told", victim, ended)
		}
		until(t, time.Minute, "w0 is started again", func() bool { return r.worker("w0").Restarts == i+1 })
		crash := r.snapshot().Crashes[0]
		t.Logf("%s killed: tree gone after %s; crash book: %s (%s)", victim, took.Round(100*time.Millisecond), crash.Cause, crash.Exit)
		if crash.Worker != "w0" || crash.Cause == "" || crash.Exit == "" || crash.Lines == 0 {
			t.Errorf("%s killed: the crash book has %+v", victim, crash)
		}
	}

	r.awaitReady("w0")
	s := r.stream(r.snapshot().Engine.URL, 600)
	s.flows(t)
	pid := r.worker("w0").PID
	stop := make(chan time.Time, 1)
	go func() {
		if out, err := r.try("worker", "stop", "w0"); err != nil {
			t.Errorf("worker stop: %v\n%s", err, out)
		}
		stop <- time.Now()
	}()
	if ended := s.wait(t, time.Minute); ended != "whole" {
		t.Errorf("a stream of a worker that is stopped ended with %q, want it whole", ended)
	}
	over := time.Now()
	ended := <-stop
	if took := ended.Sub(over); took > 15*time.Second {
		t.Errorf("stopped %s after its last request: it waited for nothing", took)
	} else {
		t.Logf("stopped %s after its last request", took.Round(100*time.Millisecond))
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Errorf("process %d is left after the stop", pid)
	}
	r.run("stop", "--yes")
	if pids := r.processes(); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

// childNamed finds a server's process by its name.
func childNamed(t *testing.T, marker, name string) int {
	t.Helper()
	for _, pid := range markedProcesses(t, marker) {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == name {
			return pid
		}
	}
	t.Fatalf("no process %s among those of %s", name, marker)
	return 0
}
