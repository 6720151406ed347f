package launchtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/launch"
)

func (s Suite) rotates(t *testing.T) {
	const lines = 60000
	sp := spec(t, "spew", strconv.Itoa(lines))
	sp.LogSize, sp.LogKeep = 256<<10, 1000
	i := s.launch(t, sp)
	logged(t, i, "spewed")
	logs, _ := filepath.Glob(i.LogPath() + ".*")
	if len(logs) < 10 {
		t.Fatalf("%d old logs, want many", len(logs))
	}
	next := 0
	for n := len(logs); n >= 0; n-- {
		path := i.LogPath()
		if n > 0 {
			path += "." + strconv.Itoa(n)
		}
		b := output(path)
		if len(b) > 256<<10+1024 {
			t.Errorf("%s has %d bytes, want 256 KiB and a line at most", path, len(b))
		}
		for line := range strings.Lines(b) {
			if line == "spewed\n" {
				continue
			}
			want := "line " + pad(next) + " " + strings.Repeat("x", next%100) + "\n"
			if line != want {
				t.Fatalf("%s: line %q, want %q", path, line, want)
			}
			next++
		}
	}
	if next != lines {
		t.Errorf("%d lines in the logs, want %d", next, lines)
	}
}

func pad(n int) string {
	s := strconv.Itoa(n)
	return strings.Repeat("0", 8-len(s)) + s
}

func (s Suite) freshLog(t *testing.T) {
	sp := spec(t, "exit", "1")
	done(t, s.launch(t, sp))
	sp.Argv = argv("exit", "2")
	i := s.launch(t, sp)
	done(t, i)
	if now, before := output(i.LogPath()), output(i.LogPath()+".1"); now != "leaving with 2\n" || before != "leaving with 1\n" {
		t.Errorf("log %q and before %q, want one start each", now, before)
	}
}

func (s Suite) diskFull(t *testing.T) {
	sp := spec(t, "spew", "200000", "end") // more than any buffer on the way
	if err := os.MkdirAll(sp.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(sp.Folder, "output.log")); err != nil {
		t.Fatal(err)
	}
	i := s.launch(t, sp)
	if e := done(t, i); e.Code != 0 {
		t.Errorf("Exit = %+v, want 0: no write of it failed", e)
	}
}

func (s Suite) leaseLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	owner := helper(t, "owner", dir)
	var pids []int
	for _, name := range []string{"w0", "w1"} {
		folder := filepath.Join(dir, "workers", name)
		pids = append(pids, family(t, filepath.Join(folder, "output.log"))...)
		pids = append(pids, s.Shim(t, folder))
	}
	if left := living(pids); len(left) != 10 {
		t.Fatalf("only %v of %v live: nothing to prove", left, pids)
	}
	began := time.Now()
	kill(t, owner.Process.Pid, syscall.SIGKILL)
	_ = owner.Wait()
	until(t, "gone, with the whole folder", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist) && len(living(pids)) == 0
	})
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("all gone after %v, want 5 s at most", d)
	}
}

func (s Suite) noLease(t *testing.T) {
	sp := spec(t, "serve")
	sp.Lease = filepath.Join(t.TempDir(), "lease")
	if _, err := s.New().Launch(t.Context(), sp); err == nil || !strings.Contains(err.Error(), "lease") {
		t.Errorf("Launch with a missing lease = %v, want an error about it", err)
	}
	if err := os.WriteFile(sp.Lease, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.New().Launch(t.Context(), sp); err == nil || !strings.Contains(err.Error(), "lease") {
		t.Errorf("Launch with a lease that nobody holds = %v, want an error about it", err)
	}
	sp.Cleanup = t.TempDir()
	if _, err := s.New().Launch(t.Context(), sp); err == nil || !strings.Contains(err.Error(), "cleanup") {
		t.Errorf("Launch with a foreign cleanup folder = %v, want an error about it", err)
	}
}

func (s Suite) environment(t *testing.T) {
	sp := spec(t, "env")
	sp.Env = []string{"VLLM_API_KEY=given", "PATH=/nowhere"}
	i := s.launch(t, sp)
	logged(t, i, "printed")
	got := map[string]string{}
	for line := range strings.Lines(output(i.LogPath())) {
		if kv, ok := strings.CutPrefix(strings.TrimSpace(line), "env "); ok {
			name, value, _ := strings.Cut(kv, "=")
			got[name] = value
		}
	}
	if id, ok := strings.CutPrefix(got["VLLMDECK_WORKER_ID"], "w0/"); !ok || len(id) < 16 {
		t.Errorf("marker = %q, want w0/ and something random", got["VLLMDECK_WORKER_ID"])
	}
	for name, want := range map[string]string{
		"VLLM_API_KEY": "given", "PATH": "/nowhere", "HF_TOKEN": os.Getenv("HF_TOKEN"), "HOME": os.Getenv("HOME"), "PWD": sp.Folder,
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"OPENAI_API_KEY", "LAUNCHTEST_CANARY_SECRET", "VLLMDECK_SHIM_ID", "VLLMDECK_CONFIG"} {
		if v, ok := got[name]; ok {
			t.Errorf("the server inherits %s=%s", name, v)
		}
	}
	if !strings.Contains(output(i.LogPath()), "dir "+sp.Folder+"\n") {
		t.Errorf("working directory is not the folder %s", sp.Folder)
	}
}

func (s Suite) longPath(t *testing.T) {
	sp := spec(t, "serve")
	sp.Folder = filepath.Join(sp.Folder, strings.Repeat("deep", 30), strings.Repeat("folder", 20))
	i := s.launch(t, sp)
	logged(t, i, "ready")
	again, err := s.New().Adopt(t.Context(), launch.Spec{Name: "w0", Folder: sp.Folder})
	if err != nil || again == nil {
		t.Fatalf("Adopt = %v, %v, want the server", again, err)
	}
	defer again.Close()
	if err := again.Kill(t.Context()); err != nil {
		t.Errorf("Kill: %v", err)
	}
}
