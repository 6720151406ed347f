package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// localModel is a model whose files are complete on this machine.
type localModel struct {
	name   string    // folder name, or hub name such as Qwen/Qwen3-0.6B
	path   string    // what vllm serve takes: the folder, or the hub name
	hub    bool      // in the Hugging Face cache
	bytes  int64     // of weights
	maxLen int       // context in tokens; 0: not known
	heads  int       // attention heads; 0: not known
	since  time.Time // when it was put there
}

func (l localModel) String() string {
	where := l.path
	if l.hub {
		where = "in the Hugging Face cache"
	}
	return fmt.Sprintf("%s, %.1f GiB, %s", l.name, float64(l.bytes)/(1<<30), where)
}

// hubCache gives the folder of the Hugging Face cache, found as its own library does.
func (h host) hubCache() string {
	if dir, _ := h.env("HF_HUB_CACHE"); dir != "" {
		return dir
	}
	if dir, _ := h.env("HF_HOME"); dir != "" {
		return filepath.Join(dir, "hub")
	}
	if dir := h.cacheDir(); dir != "" {
		return filepath.Join(dir, "huggingface", "hub")
	}
	return ""
}

// hubModels lists complete text generators in a Hugging Face cache, the latest first.
func hubModels(cache string) []localModel {
	folders, err := os.ReadDir(cache)
	if cache == "" || err != nil {
		return nil
	}
	var out []localModel
	for _, f := range folders {
		rest, ok := strings.CutPrefix(f.Name(), "models--")
		if !ok {
			continue
		}
		dir := filepath.Join(cache, f.Name())
		m, ok := readModel(snapshot(dir))
		if !ok {
			continue
		}
		m.name, m.hub = strings.Replace(rest, "--", "/", 1), true
		m.path = m.name
		if word(m.name) {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b localModel) int { return b.since.Compare(a.since) })
	return out
}

// snapshot gives the folder that "main" points at, else the latest; "" for none.
func snapshot(dir string) string {
	if ref, err := os.ReadFile(filepath.Join(dir, "refs", "main")); err == nil {
		if rev := strings.TrimSpace(string(ref)); rev != "" && !strings.ContainsAny(rev, "/\x00") {
			if path := filepath.Join(dir, "snapshots", rev); isFolder(path) {
				return path
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		return ""
	}
	var best string
	var at time.Time
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && info.ModTime().After(at) {
			best, at = filepath.Join(dir, "snapshots", e.Name()), info.ModTime()
		}
	}
	return best
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// modelsIn lists complete text generators in the folders of dir, the largest first: beside a
// real model lies a tiny random one for tests.
func modelsIn(dir string) []localModel {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []localModel
	for _, e := range entries {
		if m, ok := readModel(filepath.Join(dir, e.Name())); ok && word(e.Name()) {
			m.name, m.path = e.Name(), filepath.Join(dir, e.Name())
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b localModel) int { return int(min(max(b.bytes-a.bytes, -1), 1)) })
	return out
}

// readModel reads a model's folder. ok is false if files are missing (a download that was cut
// off leaves links to nowhere) or if it does not write text.
func readModel(dir string) (m localModel, ok bool) {
	if dir == "" {
		return m, false
	}
	var cfg struct {
		Architectures []string `json:"architectures"`
		MaxLen        int      `json:"max_position_embeddings"`
		Heads         int      `json:"num_attention_heads"`
		Text          struct {
			MaxLen int `json:"max_position_embeddings"`
			Heads  int `json:"num_attention_heads"`
		} `json:"text_config"` // of models that also see
	}
	if readJSON(filepath.Join(dir, "config.json"), &cfg) != nil || !slices.ContainsFunc(cfg.Architectures, writesText) {
		return m, false
	}
	size, complete := weights(dir)
	if !complete {
		return m, false
	}
	m = localModel{bytes: size, maxLen: max(cfg.MaxLen, cfg.Text.MaxLen), heads: max(cfg.Heads, cfg.Text.Heads)}
	if info, err := os.Stat(dir); err == nil {
		m.since = info.ModTime()
	}
	return m, true
}

func writesText(architecture string) bool {
	for _, end := range []string{"ForCausalLM", "ForConditionalGeneration", "LMHeadModel"} {
		if strings.HasSuffix(architecture, end) {
			return true
		}
	}
	return false
}

// weights adds up the weight files of a model and says whether all are there.
func weights(dir string) (size int64, complete bool) {
	for _, kind := range []string{"model.safetensors", "pytorch_model.bin"} {
		var index struct {
			Files map[string]string `json:"weight_map"`
		}
		if readJSON(filepath.Join(dir, kind+".index.json"), &index) == nil && len(index.Files) > 0 {
			seen := map[string]bool{}
			for _, file := range index.Files {
				if seen[file] {
					continue
				}
				seen[file] = true
				info, err := os.Stat(filepath.Join(dir, filepath.Base(file)))
				if err != nil {
					return 0, false
				}
				size += info.Size()
			}
			return size, true
		}
		if info, err := os.Stat(filepath.Join(dir, kind)); err == nil && info.Size() > 0 {
			return info.Size(), true
		}
	}
	found, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "*.safetensors"))
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			return 0, false
		}
		size += info.Size()
	}
	return size, size > 0
}

var globSpecials = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func escapeGlob(path string) string { return globSpecials.Replace(path) }

// readJSON reads at most 16 MiB: an index of a very large model has some megabytes.
func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(into)
}
