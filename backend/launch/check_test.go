package launch

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func vllm(model string, more ...string) Spec {
	return Spec{Name: "w0", Kind: "vllm", Argv: append([]string{os.Args[0], "serve", model}, more...), Folder: "/tmp"}
}

func TestCheckTellsWhatWouldFail(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "")
	dir := t.TempDir()
	model := filepath.Join(dir, "model")
	write(t, filepath.Join(model, "config.json"), 0o600)
	write(t, filepath.Join(dir, "cache", "models--org--cached", "snapshots", "abc", "config.json"), 0o600)
	write(t, filepath.Join(dir, "plain"), 0o600)
	offline := func(s Spec) Spec {
		s.Env = []string{"HF_HUB_OFFLINE=1", "HF_HUB_CACHE=" + filepath.Join(dir, "cache")}
		return s
	}
	withBin := func(bin string) Spec {
		s := vllm(model)
		s.Argv[0] = bin
		return s
	}
	relative := vllm("./model")
	relative.Dir = dir
	sim := vllm("/nothere")
	sim.Kind = "sim"

	for _, c := range []struct {
		name string
		spec Spec
		want []string // parts of the error; none for no error
	}{
		{"a model folder", vllm(model), nil},
		{"a folder relative to the working directory", relative, nil},
		{"a hub name", vllm("org/any"), nil},
		{"a bucket", vllm("s3://bucket/model"), nil},
		{"a simulated server has no model", sim, nil},
		{"a missing folder", vllm("/nothere"), []string{"/nothere", "path:"}},
		{"a missing folder by flag", vllm("--model=/nothere"), []string{"/nothere"}},
		{"a folder without config.json", vllm(dir), []string{"config.json"}},
		{"a tilde", vllm("~/m"), []string{"~", "whole path"}},
		{"offline and cached", offline(vllm("org/cached")), nil},
		{"offline and not cached", offline(vllm("org/other")), []string{"org/other", "HF_HUB_OFFLINE", "hf download"}},
		{"offline and in --download-dir", offline(vllm("org/cached", "--download-dir", filepath.Join(dir, "cache"))), nil},
		{"no program of that name", withBin("no-such-vllm"), []string{"no-such-vllm", "bin:"}},
		{"no program at that path", withBin("/no/such/vllm"), []string{"/no/such/vllm", "bin:"}},
		{"a file that is no program", withBin(filepath.Join(dir, "plain")), []string{"chmod +x"}},
		{"a folder as program", withBin(dir), []string{"is a folder"}},
	} {
		err := Check(c.spec)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: Check = %v, want %q", c.name, err, c.want)
		}
		for _, part := range c.want {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%s: Check = %v, want it to name %q", c.name, err, part)
			}
		}
	}
}

func TestFreePortIsFreeAndNoneOfAvoid(t *testing.T) {
	var taken []int
	for range 20 {
		port, err := FreePort(taken...)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range taken {
			if p == port {
				t.Errorf("FreePort gave %d twice", port)
			}
		}
		taken = append(taken, port)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("port %d is not free: %v", port, err)
			continue
		}
		ln.Close()
	}
}

func write(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{}"), mode); err != nil {
		t.Fatal(err)
	}
}
