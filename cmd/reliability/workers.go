package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// toy is the model that all simulated workers serve.
const toy = "toy"

// simulated is a config of n simulated workers w0, w1 … that the engine starts, with the same texts. sim
// holds further keys of each, e.g. "ttft: 5ms, max_num_seqs: 128"; more is further YAML at the top level. A
// worker that dies is started again at once, however often it dies.
func simulated(n int, sim string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "models: [{name: %s, aliases: [default]}]\ncost: {gpu_hour: 1.00}\n%s\nworkers:\n", toy, strings.Join(more, "\n"))
	for i := range n {
		fmt.Fprintf(&b, "  - {name: w%d, model: %s, gpus: 1, stop_timeout: 1s, restart: {base: 50ms, max: 200ms, window: 1ms, tries: 100}, sim: {seed: 1, start: 20ms, %s}}\n", i, toy, sim)
	}
	return b.String()
}

// attached is a config of workers a0, a1 … that run already at these addresses.
func attached(urls []string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "models: [{name: %s, aliases: [default]}]\ncost: {gpu_hour: 1.00}\n%s\nworkers:\n", toy, strings.Join(more, "\n"))
	for i, url := range urls {
		fmt.Fprintf(&b, "  - {name: a%d, model: %s, attach: %q, gpus: 1}\n", i, toy, url)
	}
	return b.String()
}

// server is a simulated vLLM that no engine has started.
type server struct {
	url string
	cmd *exec.Cmd
}

// server starts "vllmdeck sim" with these flags and waits until it answers.
func (t *trial) server(ctx context.Context, flags ...string) (*server, error) {
	return t.serverWith(ctx, nil, flags...)
}

// serverWith is server with variables added to its environment.
func (t *trial) serverWith(ctx context.Context, env []string, flags ...string) (*server, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://127.0.0.1:" + strconv.Itoa(port)}
	args := append([]string{"sim", "--port", strconv.Itoa(port), "--served-model-name", toy, "--start", "20ms"}, flags...)
	s.cmd = exec.Command(t.bin, args...) //nolint:noctx // it ends with its trial
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	t.cleanup(func() {
		for _, pid := range children(s.cmd.Process.Pid) { // its engine's process may have a session of its own
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		_ = s.cmd.Wait()
	})
	return s, until(ctx, 20*time.Second, "a simulated server answers", func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/health", nil)
		if err != nil {
			return false
		}
		resp, err := http.DefaultClient.Do(req)
		return err == nil && drain(resp) == nil && resp.StatusCode == http.StatusOK
	})
}

func freePort(ctx context.Context) (int, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	at, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("no port")
	}
	return at.Port, nil
}

// script writes a program that is called as "vllm" is and becomes a simulated server, into a folder that passes for a model's, and gives
// its path.
func (t *trial) script() (string, error) {
	dir, err := os.MkdirTemp("", "rel")
	if err != nil {
		return "", err
	}
	t.cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "vllm")
	text := `#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	--port) port=$2 ;;
	--port=*) port=${1#*=} ;;
	--served-model-name) name=$2 ;;
	--served-model-name=*) name=${1#*=} ;;
	esac
	shift
done
exec ` + t.bin + ` sim --port "$port" --served-model-name "$name" --start 20ms --ttft 5ms --itl 2ms
`
	return path, os.WriteFile(path, []byte(text), 0o700) //nolint:gosec // it is run
}
