package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed nginx.conf
var nginxConf string

// bed is the processes that are measured.
type bed struct {
	dir   string
	procs []*exec.Cmd
}

func (b *bed) close() {
	for _, p := range b.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range b.procs {
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Wait() }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill()
			<-done
		}
	}
}

func (b *bed) start(ctx context.Context, name string, args ...string) (*exec.Cmd, *bytes.Buffer, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out := &bytes.Buffer{}
	cmd.Stderr = out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	b.procs = append(b.procs, cmd)
	return cmd, out, nil
}

func freePort(ctx context.Context) (string, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func (b *bed) upstream(ctx context.Context) (target, error) {
	addr, err := freePort(ctx)
	if err != nil {
		return target{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return target{}, err
	}
	cmd, out, err := b.start(ctx, self, "upstream", addr)
	if err != nil {
		return target{}, err
	}
	return target{"direct", addr, []int{cmd.Process.Pid}}, await(ctx, "http://"+addr+"/health", out)
}

func (b *bed) nginx(ctx context.Context, path, up string) (target, error) {
	addr, err := freePort(ctx)
	if err != nil {
		return target{}, err
	}
	conf := filepath.Join(b.dir, "nginx.conf")
	var text strings.Builder
	err = template.Must(template.New("nginx").Parse(nginxConf)).Execute(&text, map[string]string{"Dir": b.dir, "Listen": addr, "Upstream": up})
	if err != nil {
		return target{}, err
	}
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		return target{}, err
	}
	cmd, out, err := b.start(ctx, path, "-p", b.dir, "-c", conf, "-g", "daemon off;")
	if err != nil {
		return target{}, err
	}
	if err := await(ctx, "http://"+addr+"/health", out); err != nil {
		return target{}, err
	}
	return target{"nginx", addr, append(children(cmd.Process.Pid), cmd.Process.Pid)}, nil
}

func (b *bed) vllmdeck(ctx context.Context, bin, up string) (target, error) {
	addr, err := freePort(ctx)
	if err != nil {
		return target{}, err
	}
	conf := filepath.Join(b.dir, "vllmdeck.yaml")
	text := fmt.Sprintf(`listen: %q
state: %q
workers:
  - {name: w0, model: bench, attach: "http://%s", gpus: 1}
cost: {baseline: openai/gpt-4o-mini, gpu_hour: 0.34}
`, addr, filepath.Join(b.dir, "state"), up)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return target{}, err
	}
	cmd, out, err := b.start(ctx, bin, "serve", "--quiet", "--config", conf)
	if err != nil {
		return target{}, err
	}
	return target{"vllmdeck", addr, []int{cmd.Process.Pid}}, await(ctx, "http://"+addr+"/health", out)
}

// await waits until a URL answers 200.
func await(ctx context.Context, url string, out *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w: %s", url, err, strings.TrimSpace(out.String()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// children lists the processes whose parent is pid.
func children(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var out []int
	for _, s := range stats {
		f := statFields(s)
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			if err == nil {
				out = append(out, id)
			}
		}
	}
	return out
}

// statFields are the fields of /proc/PID/stat after the name, which may hold spaces.
func statFields(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// usage is CPU time used and memory held by processes.
func usage(pids []int) (cpu time.Duration, rss int64) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux we know
	for _, pid := range pids {
		f := statFields("/proc/" + strconv.Itoa(pid) + "/stat")
		if len(f) < 22 {
			continue
		}
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		pages, _ := strconv.ParseInt(f[21], 10, 64)
		cpu += time.Duration(user+system) * tick
		rss += pages * int64(os.Getpagesize())
	}
	return cpu, rss
}
