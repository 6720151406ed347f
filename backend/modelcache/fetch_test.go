package modelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/modelcache/hubtest"
)

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a cache in a folder of its own that fetches from a hub of its own.
type rig struct {
	*Cache
	t    *testing.T
	hub  *hubtest.Hub
	vars map[string]string
	dir  string // hub folder
	log  *logBuffer
}

func newRig(t *testing.T, vars map[string]string) *rig {
	t.Helper()
	home := t.TempDir()
	h := hubtest.New(t)
	all := map[string]string{"HOME": home, "HF_ENDPOINT": h.URL}
	maps.Copy(all, vars)
	log := &logBuffer{}
	r := &rig{t: t, hub: h, vars: all, dir: hubFolder(envOf(all)), log: log}
	r.Cache = New(Options{Env: envOf(all), Pause: time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r.until("the first look", func() bool { return r.latest.Load() != nil })
	return r
}

func envOf(vars map[string]string) Env { return func(name string) string { return vars[name] } }

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s; cache: %+v", what, r.Latest())
		}
		<-time.After(2 * time.Millisecond)
	}
}

// fetched fetches a model and waits for the end.
func (r *rig) fetched(name string) api.Download {
	r.t.Helper()
	if err := r.Fetch(name, ""); err != nil {
		r.t.Fatal(err)
	}
	return r.ended(name)
}

func (r *rig) ended(name string) api.Download {
	r.t.Helper()
	var d api.Download
	r.until("the end of the download", func() bool {
		d = r.download(name)
		return d.State != running && d.State != ""
	})
	return d
}

func (r *rig) download(name string) api.Download {
	if v := r.Latest(); v != nil {
		for _, d := range v.Downloads {
			if d.Name == name {
				return d
			}
		}
	}
	return api.Download{}
}

func (r *rig) model(name string) (api.CacheModel, bool) {
	if v := r.Latest(); v != nil {
		for _, m := range v.Models {
			if m.Name == name {
				return m, true
			}
		}
	}
	return api.CacheModel{}, false
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// sharded is a model with an index, and with what vLLM does not need.
func sharded() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "tokenizer.json": noise(5000), "chat template.jinja": []byte("{{ x }}"),
		"model-00001-of-00002.safetensors": noise(300_000), "model-00002-of-00002.safetensors": noise(200_000),
		"model.safetensors.index.json": []byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}`),
		"model.safetensors":            noise(10), "pytorch_model.bin": noise(11), "model.gguf": noise(12), "original/consolidated.00.pth": noise(13),
		"onnx/model.onnx": noise(14), "README.md": []byte("hello"), ".gitattributes": []byte("x"), "1_Pooling/config.json": []byte("{}"), "flax_model.msgpack": noise(9),
	}
}

func TestFetchLaysOutTheCacheAsTheHubsOwnLibraryDoes(t *testing.T) {
	r := newRig(t, nil)
	files := sharded()
	r.hub.Add("org/m", files)
	d := r.fetched("org/m")
	if d.State != done || d.Error != "" {
		t.Fatalf("download = %+v, want done", d)
	}
	want := []string{"1_Pooling/config.json", "chat template.jinja", "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"}
	dir := filepath.Join(r.dir, "models--org--m")
	snap := filepath.Join(dir, "snapshots", hubtest.Commit)
	var got []string
	var size int64
	_ = filepath.WalkDir(snap, func(path string, e os.DirEntry, _ error) error {
		if !e.IsDir() {
			rel, _ := filepath.Rel(snap, path)
			got = append(got, rel)
		}
		return nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("snapshot has %q, want %q", got, want)
	}
	for _, name := range want {
		data, err := os.ReadFile(filepath.Join(snap, name))
		if err != nil || !bytes.Equal(data, files[name]) {
			t.Errorf("%s: %d bytes, %v; want the hub's %d", name, len(data), err, len(files[name]))
		}
		link, err := os.Readlink(filepath.Join(snap, name))
		up := strings.Repeat("../", 2+strings.Count(name, "/"))
		if want := up + "blobs/" + hubtest.ETag(name, files[name]); err != nil || link != want {
			t.Errorf("%s links to %q (%v), want %q", name, link, err, want)
		}
		size += int64(len(files[name]))
	}
	if ref, _ := os.ReadFile(filepath.Join(dir, "refs", "main")); string(ref) != hubtest.Commit {
		t.Errorf("refs/main = %q, want the commit alone", ref)
	}
	if d.Size != size || d.Done != size {
		t.Errorf("download counts %d of %d bytes, want %d", d.Done, d.Size, size)
	}
	r.until("the cache to be read anew", func() bool { m, ok := r.model("org/m"); return ok && m.Size == size })
	if m, _ := r.model("org/m"); m.Revision != hubtest.Commit || len(m.Missing) > 0 || m.Partial != 0 {
		t.Errorf("model = %+v, want it whole", m)
	}
	// A second time nothing is read again.
	before := len(r.hub.Gets())
	if d := r.fetched("org/m"); d.State != done || d.Done != size || len(r.hub.Gets()) != before {
		t.Errorf("second time: %+v and %d reads, want done without one", d, len(r.hub.Gets())-before)
	}
}

func TestABrokenDownloadGoesOnWhereItBrokeOff(t *testing.T) {
	r := newRig(t, nil)
	weights := noise(1 << 20)
	r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights})
	cut := 3
	r.hub.Body = func(w http.ResponseWriter, _ string, part []byte) {
		if cut--; cut >= 0 {
			_, _ = w.Write(part[:100_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(part)
	}
	if d := r.fetched("org/m"); d.State != done || d.Done != d.Size {
		t.Fatalf("download = %+v, want done", d)
	}
	gets := r.hub.Gets()
	for i, at := range []int{0, 100_000, 200_000, 300_000} {
		if want := fmt.Sprintf("model.safetensors from %d", at); i >= len(gets) || gets[i] != want {
			t.Fatalf("reads = %q, want read %d to be %q", gets, i, want)
		}
	}
	got, err := os.ReadFile(filepath.Join(r.dir, "models--org--m", "snapshots", hubtest.Commit, "model.safetensors"))
	if err != nil || !bytes.Equal(got, weights) {
		t.Errorf("weights: %d bytes, %v; want the hub's", len(got), err)
	}
}

func TestCancelKeepsWhatIsThere(t *testing.T) {
	r := newRig(t, nil)
	weights := noise(1 << 20)
	r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights})
	free := make(chan struct{})
	r.hub.Body = func(w http.ResponseWriter, _ string, part []byte) {
		_, _ = w.Write(part[:500_000])
		w.(http.Flusher).Flush()
		<-free
	}
	if err := r.Fetch("org/m", ""); err != nil {
		t.Fatal(err)
	}
	r.until("half of it", func() bool { return r.download("org/m").Done >= 500_000 })
	if d := r.download("org/m"); d.State != running || d.Rate <= 0 || d.File != "model.safetensors" || d.Size != int64(len(weights))+2 {
		t.Errorf("under way: %+v, want running with a rate, its file and its size", d)
	}
	if err := r.Fetch("org/m", ""); !errors.Is(err, api.ErrRefused) {
		t.Errorf("second fetch: %v, want refused", err)
	}
	if err := r.Remove(t.Context(), "org/m"); !errors.Is(err, api.ErrRefused) {
		t.Errorf("remove: %v, want refused", err)
	}
	if err := r.Cancel("org/m"); err != nil {
		t.Fatal(err)
	}
	if d := r.ended("org/m"); d.State != cancelled || d.Error != "" {
		t.Errorf("download = %+v, want cancelled", d)
	}
	close(free)
	r.until("the part", func() bool { m, ok := r.model("org/m"); return ok && m.Partial == 500_000 })
	if _, err := os.Stat(filepath.Join(r.dir, "models--org--m", "refs", "main")); !os.IsNotExist(err) {
		t.Errorf("refs/main: %v; a snapshot that is not whole must not be found", err)
	}
	if err := r.Cancel("org/m"); !errors.Is(err, api.ErrRefused) {
		t.Errorf("second cancel: %v, want refused", err)
	}
	r.hub.Body = nil
	if d := r.fetched("org/m"); d.State != done {
		t.Fatalf("download = %+v, want done", d)
	}
	if gets := r.hub.Gets(); gets[len(gets)-1] != "model.safetensors from 500000" {
		t.Errorf("reads = %q, want it to go on from 500000", gets)
	}
}

func TestAWrongPartIsFetchedAnew(t *testing.T) {
	for _, part := range [][]byte{noise(1000), noise(500_000)} { // another's bytes; more than there should be
		r := newRig(t, nil)
		weights := noise(200_000)
		r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights})
		blobs := filepath.Join(r.dir, "models--org--m", "blobs")
		if err := os.MkdirAll(blobs, 0o755); err != nil {
			t.Fatal(err)
		}
		blob := filepath.Join(blobs, hubtest.ETag("model.safetensors", weights))
		if err := os.WriteFile(blob+".incomplete", part, 0o644); err != nil {
			t.Fatal(err)
		}
		if d := r.fetched("org/m"); d.State != done || d.Done != d.Size {
			t.Fatalf("download = %+v, want done", d)
		}
		if got, err := os.ReadFile(blob); err != nil || !bytes.Equal(got, weights) {
			t.Errorf("blob: %d bytes, %v; want the hub's", len(got), err)
		}
	}
}

func TestAHubThatSendsTheWrongBytesIsNotBelieved(t *testing.T) {
	r := newRig(t, nil)
	r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1000)})
	r.hub.Body = func(w http.ResponseWriter, _ string, part []byte) { _, _ = w.Write(make([]byte, len(part))) }
	d := r.fetched("org/m")
	if d.State != failed || !strings.Contains(d.Error, "checksum") {
		t.Errorf("download = %+v, want it to fail by the checksum", d)
	}
	found, _ := filepath.Glob(filepath.Join(r.dir, "models--org--m", "snapshots", "*", "model.safetensors"))
	if len(found) > 0 {
		t.Errorf("wrong weights are in the snapshot: %q", found)
	}
}

func TestAServerWithoutRangesStartsOver(t *testing.T) {
	r := newRig(t, nil)
	r.hub.Ranges = false
	weights := noise(200_000)
	r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights})
	cut := true
	r.hub.Body = func(w http.ResponseWriter, _ string, part []byte) {
		if cut {
			cut = false
			_, _ = w.Write(part[:50_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(part)
	}
	if d := r.fetched("org/m"); d.State != done || d.Done != d.Size {
		t.Errorf("download = %+v, want done with every byte counted once", d)
	}
}

func TestABusyHubIsAskedAgain(t *testing.T) {
	r := newRig(t, nil)
	r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1000)})
	r.hub.Busy = 4
	if d := r.fetched("org/m"); d.State != done {
		t.Errorf("download = %+v, want done", d)
	}
	r.hub.Busy = 1000
	r.hub.Add("org/n", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1001)})
	if d := r.fetched("org/n"); d.State != failed || !strings.Contains(d.Error, "gave up after 5 tries") {
		t.Errorf("download = %+v, want it given up", d)
	}
}

func TestRefusalsNameWhatMendsThem(t *testing.T) {
	model := map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1000)}
	for _, c := range []struct {
		what  string
		vars  map[string]string
		gated bool
		name  string
		want  []string
	}{
		{"gated, no token", nil, true, "org/m", []string{"org/m is gated", "accept its terms at http://", "/org/m", "HF_TOKEN"}},
		{"a wrong token", map[string]string{"HF_TOKEN": "hf_wrong"}, true, "org/m", []string{"does not take the token (HF_TOKEN)"}},
		{"no such model", nil, false, "org/none", []string{"no model org/none", "HF_TOKEN"}},
		{"no such model, with a token", map[string]string{"HF_TOKEN": "hf_secret"}, false, "org/none", []string{"no model org/none"}},
		{"no weights", nil, false, "org/gguf", []string{"no weights that vLLM loads"}},
		{"no hub", map[string]string{"HF_ENDPOINT": "http://127.0.0.1:1"}, false, "org/m", []string{"no answer from 127.0.0.1:1"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, c.vars)
			r.hub.Gated, r.hub.Token = c.gated, "hf_secret"
			r.hub.Add("org/m", model)
			r.hub.Add("org/gguf", map[string][]byte{"config.json": []byte("{}"), "m.gguf": noise(5)})
			d := r.fetched(c.name)
			if d.State != failed {
				t.Fatalf("download = %+v, want failed", d)
			}
			for _, want := range c.want {
				if !strings.Contains(d.Error, want) {
					t.Errorf("error %q does not say %q", d.Error, want)
				}
			}
			if all := d.Error + r.log.String(); strings.Contains(all, "hf_") {
				t.Errorf("the token is shown: %s", all)
			}
		})
	}
}

func TestTheTokenOpensAGatedModelAndStaysOnTheHub(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "token"), []byte("hf_secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, vars := range []map[string]string{{"HF_TOKEN": "hf_secret"}, {"HF_HOME": home}} {
		r := newRig(t, vars)
		r.hub.Gated, r.hub.Token = true, "hf_secret"
		r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1000)})
		if d := r.fetched("org/m"); d.State != done { // the hub fails the test if its CDN sees the token
			t.Errorf("download = %+v, want done", d)
		}
		if strings.Contains(r.log.String(), "hf_secret") || strings.Contains(fmt.Sprintf("%v %+v %#v", readToken(envOf(r.vars)), readToken(envOf(r.vars)), readToken(envOf(r.vars))), "hf_secret") {
			t.Error("the token is shown")
		}
	}
}

func TestOrdersThatMakeNoSenseAreRefused(t *testing.T) {
	r := newRig(t, map[string]string{"HF_HUB_OFFLINE": "1"})
	if err := r.Fetch("org/m", ""); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "HF_HUB_OFFLINE") {
		t.Errorf("offline: %v, want it to name HF_HUB_OFFLINE", err)
	}
	r = newRig(t, nil)
	for _, name := range []string{"", "../x", "a/../b", "/etc", "a/b/c", "org/m--x", "org/..", ".hidden", "a\x00b", strings.Repeat("a", 300), "org/m.git"} {
		if err := r.Fetch(name, ""); !errors.Is(err, api.ErrRefused) {
			t.Errorf("fetch %q: %v, want refused", name, err)
		}
		if err := r.Remove(t.Context(), name); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("remove %q: %v, want unknown", name, err)
		}
	}
	for _, rev := range []string{"../../x", "/x", "a//b", "a\nb"} {
		if err := r.Fetch("org/m", rev); !errors.Is(err, api.ErrRefused) {
			t.Errorf("revision %q: %v, want refused", rev, err)
		}
	}
}

func TestAHubCannotWriteOutsideItsFolder(t *testing.T) {
	for _, name := range []string{"../../evil.json", "/etc/evil.json", "a/../../evil.json", "a//b.json", `..\evil.json`, "a\x00.json"} {
		r := newRig(t, nil)
		r.hub.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(10), name: []byte("{}")})
		if d := r.fetched("org/m"); d.State != failed || !strings.Contains(d.Error, "cannot be stored") {
			t.Errorf("file %q: %+v, want it to fail", name, d)
		}
	}
}

func TestTheEnginesEndEndsDownloads(t *testing.T) {
	h := hubtest.New(t)
	h.Add("org/m", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": noise(1000)})
	held := make(chan struct{})
	h.Body = func(http.ResponseWriter, string, []byte) { <-held }
	defer close(held)
	c := New(Options{Env: envOf(map[string]string{"HOME": t.TempDir(), "HF_ENDPOINT": h.URL})})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if err := c.Fetch("org/m", ""); err != nil {
		t.Fatal(err)
	}
	for len(h.Gets()) == 0 {
		<-time.After(time.Millisecond)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on")
	}
	if err := c.Fetch("org/m", ""); !errors.Is(err, api.ErrRefused) {
		t.Errorf("fetch after the end: %v, want refused", err)
	}
}
