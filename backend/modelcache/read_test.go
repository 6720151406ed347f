package modelcache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// write makes files under dir: text, or a link where the text begins with "-> ".
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	revA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	revB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func find(c *api.Cache, name string) (api.CacheModel, bool) {
	i := slices.IndexFunc(c.Models, func(m api.CacheModel) bool { return m.Name == name })
	if i < 0 {
		return api.CacheModel{}, false
	}
	return c.Models[i], true
}

func TestReadCountsEachByteOnce(t *testing.T) {
	home := t.TempDir()
	hub := filepath.Join(home, ".cache/huggingface/hub")
	hash := strings.Repeat("ab", 32)
	write(t, hub, map[string]string{
		// Two revisions that share a blob, and a broken download.
		"models--org--two/blobs/b1": "12345", "models--org--two/blobs/b2": "1234567", "models--org--two/blobs/b3.incomplete": "123",
		"models--org--two/blobs/b4.0a1b2c3d.incomplete": "12",
		"models--org--two/refs/main":                    revB,
		"models--org--two/snapshots/" + revA + "/w.bin": "-> ../../blobs/b1", "models--org--two/snapshots/" + revB + "/w.bin": "-> ../../blobs/b1",
		"models--org--two/snapshots/" + revB + "/c.json": "-> ../../blobs/b2",
		// The layout without links.
		"models--flat/snapshots/" + revA + "/w.bin": "1234567890",
		// Two models that share a file of huggingface_hub's store.
		"blobs/ab/" + hash: "123456789012", "blobs/.huggingface-shared-blobs": "1\n",
		"models--org--s1/blobs/e": "-> ../../blobs/ab/" + hash, "models--org--s2/blobs/e": "-> ../../blobs/ab/" + hash,
		// What is no model.
		"datasets--org--d/blobs/x": "123", "models--a--b--c/blobs/x": "1", "version.txt": "1", "models--file": "1",
	})
	if err := os.MkdirAll(filepath.Join(hub, "models--org--linked/snapshots", revA), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(hub, "models--org--two/blobs/b1"), filepath.Join(hub, "models--org--linked/snapshots", revA, "w.bin")); err != nil {
		t.Fatal(err)
	}
	c := Read(envOf(map[string]string{"HOME": home}), nil)
	if c.Error != "" || c.Path != hub || c.Free <= 0 {
		t.Errorf("cache = %q, free %d, error %q; want %q", c.Path, c.Free, c.Error, hub)
	}
	for name, want := range map[string]int64{"org/two": 12, "flat": 10, "org/s1": 12, "org/s2": 12, "org/linked": 5} {
		if m, ok := find(c, name); !ok || m.Size != want || len(m.Missing) > 0 {
			t.Errorf("%s = %+v, want %d bytes and nothing missing", name, m, want)
		}
	}
	if len(c.Models) != 5 {
		t.Errorf("%d models, want 5: %+v", len(c.Models), c.Models)
	}
	if want := int64(12 + 10 + 12); c.Size != want {
		t.Errorf("the whole = %d bytes, want %d: what is shared counts once", c.Size, want)
	}
	if m, _ := find(c, "org/two"); m.Partial != 5 || m.Revision != revB {
		t.Errorf("org/two has partial %d of revision %q, want 5 of main's", m.Partial, m.Revision)
	}
	if m, _ := find(c, "flat"); m.Revision != "" {
		t.Errorf("flat has revision %q, want none: nothing says what main is", m.Revision)
	}
}

func TestReadNamesWhatIsMissing(t *testing.T) {
	hub := t.TempDir()
	shards := make([]string, 12)
	for i := range shards {
		shards[i] = fmt.Sprintf(`"t%d":"model-%05d.safetensors"`, i, i)
	}
	index := `{"weight_map":{` + strings.Join(shards, ",") + `,"x":"../../../../etc/passwd"}}`
	snap := "models--org--m/snapshots/" + revA + "/"
	write(t, hub, map[string]string{
		"models--org--m/refs/main": revA, snap + "model.safetensors.index.json": index, snap + "model-00000.safetensors": "1", snap + "tokenizer.json": "-> ../../blobs/none",
		"models--org--bad/refs/main": revA, "models--org--bad/snapshots/" + revA + "/model.safetensors.index.json": "no json",
		// Fetched as safetensors, from a repository that has bin too.
		"models--org--both/refs/main": revA, "models--org--both/snapshots/" + revA + "/model.safetensors": "1",
		"models--org--both/snapshots/" + revA + "/pytorch_model.bin.index.json": `{"weight_map":{"a":"pytorch_model-1.bin"}}`,
	})
	c := Read(envOf(map[string]string{"HF_HUB_CACHE": hub}), nil)
	m, _ := find(c, "org/m")
	if len(m.Missing) != maxMissing || m.Missing[0] != "model-00001.safetensors" || slices.Contains(m.Missing, "model-00000.safetensors") {
		t.Errorf("missing = %q, want the first %d of the 12 that are", m.Missing, maxMissing)
	}
	for _, name := range []string{"org/bad", "org/both"} {
		if m, ok := find(c, name); !ok || len(m.Missing) > 0 {
			t.Errorf("%s = %+v, want it listed with nothing missing", name, m)
		}
	}
}

func TestReadFindsTheWorkersThatNeedAModel(t *testing.T) {
	home, other, weights := t.TempDir(), t.TempDir(), t.TempDir()
	hub := filepath.Join(home, ".cache/huggingface/hub")
	write(t, hub, map[string]string{"models--org--a/snapshots/" + revA + "/w.bin": "1", "models--org--b/snapshots/" + revA + "/w.bin": "1"})
	write(t, filepath.Join(other, "hub"), map[string]string{"models--org--a/blobs/x": "1"})
	write(t, weights, map[string]string{"models--org--b/blobs/x": "1"})
	short := filepath.Join(t.TempDir(), "short")
	if err := os.Symlink(filepath.Join(hub, "models--org--b/snapshots", revA), short); err != nil {
		t.Fatal(err)
	}
	c := Read(envOf(map[string]string{"HOME": home}), []Need{
		{Worker: "byname", Models: []string{"org/a"}},
		{Worker: "bypath", Models: []string{filepath.Join(hub, "models--org--a/snapshots", revA)}},
		{Worker: "bylink", Models: []string{short}},
		{Worker: "elsewhere", Models: []string{"org/a"}, Env: map[string]string{"HF_HOME": other}},
		{Worker: "twofolders", Models: []string{"org/b"}, Folder: weights},
		{Worker: "absent", Models: []string{"org/none", "/models/none"}},
	})
	type key struct{ name, path string }
	got := map[key][]string{}
	for _, m := range c.Models {
		got[key{m.Name, m.Path}] = m.Workers
	}
	for k, want := range map[key][]string{
		{"org/a", ""}: {"byname", "bypath"}, {"org/b", ""}: {"bylink", "twofolders"}, {"org/a", filepath.Join(other, "hub")}: {"elsewhere"},
		{"org/b", weights}: {"twofolders"}, {"org/none", ""}: {"absent"},
	} {
		if !slices.Equal(got[k], want) {
			t.Errorf("%v is needed by %q, want %q", k, got[k], want)
		}
	}
	if m, _ := find(c, "org/none"); m.Size != 0 || len(m.Missing) == 0 {
		t.Errorf("org/none = %+v, want it listed as missing", m)
	}
}

func TestUsedIsTheLastReadAndLookingIsNone(t *testing.T) {
	hub := t.TempDir()
	if !keepsAccess(hub) {
		t.Skip("this file system does not note when files are read")
	}
	snap := "models--org--m/snapshots/" + revA + "/"
	write(t, hub, map[string]string{"models--org--m/refs/main": revA, snap + "model.safetensors.index.json": `{"weight_map":{"a":"w.safetensors"}}`, snap + "w.safetensors": "1"})
	then := time.Now().Add(-72 * time.Hour).Truncate(time.Second)
	for _, f := range []string{"model.safetensors.index.json", "w.safetensors"} {
		if err := os.Chtimes(filepath.Join(hub, snap, f), then, then.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second look would see what the first one had changed
		m, _ := find(Read(envOf(map[string]string{"HF_HUB_CACHE": hub}), nil), "org/m")
		if !m.Used.Equal(then) {
			t.Fatalf("used = %v, want %v", m.Used, then)
		}
	}
}

func TestHubFolderFollowsTheVariables(t *testing.T) {
	for _, c := range []struct {
		vars map[string]string
		want string
	}{
		{map[string]string{"HOME": "/h"}, "/h/.cache/huggingface/hub"},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"}, "/h/hf/hub"},
		{map[string]string{"HOME": "/h", "HF_HOME": "/a", "HUGGINGFACE_HUB_CACHE": "/b"}, "/b"},
		{map[string]string{"HOME": "/h", "DISK": "/d", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HUB_CACHE": "$DISK/c"}, "/d/c"},
		{nil, ""},
	} {
		if got := hubFolder(envOf(c.vars)); got != c.want {
			t.Errorf("%v: %q, want %q", c.vars, got, c.want)
		}
	}
}

func TestALargeCacheIsShownInPart(t *testing.T) {
	hub := t.TempDir()
	files := map[string]string{}
	for i := range maxModels + 30 {
		files[fmt.Sprintf("models--org--m%03d/blobs/b", i)] = strings.Repeat("x", i+1)
	}
	write(t, hub, files)
	c := Read(envOf(map[string]string{"HF_HUB_CACHE": hub}), []Need{{Worker: "w0", Models: []string{"org/m000"}}})
	if len(c.Models) != maxModels {
		t.Fatalf("%d models, want %d", len(c.Models), maxModels)
	}
	if _, ok := find(c, "org/m000"); !ok {
		t.Error("the smallest model is left out although a worker needs it")
	}
	if _, ok := find(c, "org/m005"); ok {
		t.Error("a small model that nobody needs is shown")
	}
}

func TestRemoveTakesAModelAndNothingElse(t *testing.T) {
	hub := t.TempDir()
	outside := t.TempDir()
	own, shared := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	write(t, outside, map[string]string{"keep": "1"})
	write(t, hub, map[string]string{
		"models--org--m/blobs/b1": "123", "models--org--m/refs/main": revA, "models--org--m/snapshots/" + revA + "/w.bin": "-> ../../blobs/b1",
		"models--org--m/snapshots/" + revA + "/out": "-> " + filepath.Join(outside, "keep"), "models--org--m/blobs/own": "-> ../../blobs/ab/" + own,
		"models--org--m/blobs/shared": "-> ../../blobs/cd/" + shared, ".locks/models--org--m/b1.lock": "", ".locks/models--org--other/x.lock": "",
		"models--org--other/blobs/shared": "-> ../../blobs/cd/" + shared, "blobs/ab/" + own: "1", "blobs/ab/" + own + ".refs": "x", "blobs/cd/" + shared: "1",
		"models--org--used/blobs/x": "1",
	})
	c := New(Options{Env: envOf(map[string]string{"HF_HUB_CACHE": hub})})
	c.Need([]Need{{Worker: "w0", Models: []string{"org/used"}}})
	if err := c.Remove(t.Context(), "org/used"); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "w0") {
		t.Errorf("remove what is needed: %v, want it refused with the worker's name", err)
	}
	if err := c.Remove(t.Context(), "org/none"); !errors.Is(err, api.ErrUnknown) {
		t.Errorf("remove what is not there: %v, want unknown", err)
	}
	unlock, err := lockFile(t.Context(), filepath.Join(hub, ".locks/models--org--m/b1.lock"), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "org/m"); !errors.Is(err, api.ErrRefused) {
		t.Errorf("remove while a file is locked: %v, want refused", err)
	}
	unlock()
	if err := c.Remove(t.Context(), "org/m"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		filepath.Join(hub, "models--org--m"): false, filepath.Join(hub, ".locks/models--org--m"): false, filepath.Join(hub, "blobs/ab", own): false,
		filepath.Join(hub, "blobs/ab", own+".refs"): false, filepath.Join(hub, "blobs/cd", shared): true, filepath.Join(outside, "keep"): true,
		filepath.Join(hub, ".locks/models--org--other/x.lock"): true, filepath.Join(hub, "models--org--used/blobs/x"): true,
	} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", path, err == nil, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(hub, ".removing-*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	// A folder that is a link is somebody's own arrangement.
	write(t, hub, map[string]string{"models--org--link": "-> " + outside})
	if err := c.Remove(t.Context(), "org/link"); !errors.Is(err, api.ErrRefused) {
		t.Errorf("remove a link: %v, want refused", err)
	}
}

func TestALockIsWaitedForAndOneThatWasRemovedIsTakenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.lock")
	unlock, err := lockFile(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan func(), 1)
	go func() {
		second, err := lockFile(t.Context(), path, false)
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	select {
	case <-got:
		t.Fatal("two hold one lock")
	case <-time.After(2 * lockEvery):
	}
	if err := os.Remove(path); err != nil { // by who removes the model
		t.Fatal(err)
	}
	unlock()
	(<-got)()
	ctx, cancel := context.WithCancel(t.Context())
	unlock, err = lockFile(ctx, path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	cancel()
	if _, err := lockFile(ctx, path, false); !errors.Is(err, context.Canceled) {
		t.Errorf("lock after the end: %v, want canceled", err)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"org/m", "gpt2", "../x", "a/../b", "models--a--b", "a\x00b", "a/b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ValidName(s) {
			if dir := filepath.Join("/hub", folderOf(s)); filepath.Dir(dir) != "/hub" || !strings.HasPrefix(filepath.Base(dir), folderPrefix) {
				t.Errorf("%q is the folder %q", s, dir)
			}
			if name, ok := nameOf(folderOf(s)); !ok || name != s {
				t.Errorf("%q comes back as %q", s, name)
			}
		}
		if validFile(s) {
			if p := filepath.Join("/snap", s); !strings.HasPrefix(p, "/snap/") || p != "/snap/"+s {
				t.Errorf("file %q is at %q", s, p)
			}
		}
		if validRev(s) && !strings.HasPrefix(filepath.Join("/refs", s), "/refs/") {
			t.Errorf("revision %q leaves its folder", s)
		}
	})
}
