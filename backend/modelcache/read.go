package modelcache

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	maxModels  = 100    // that are listed
	maxMissing = 8      // of one model
	maxFiles   = 20_000 // of one model's snapshots that are looked at
	maxIndex   = 16 << 20
)

// Read looks at the cache of an environment, and at those of the needs where these are others. Models
// that a worker needs and that are not there yet are listed too, without a size.
func Read(env Env, needs []Need) *api.Cache {
	main := hubFolder(env)
	out := &api.Cache{Path: main, Offline: offline(env), Models: []api.CacheModel{}}
	if main == "" {
		out.Error = "there is no home folder: set HF_HOME"
		return out
	}
	seen := map[fileID]bool{}
	for i, hub := range hubsOf(env, needs) {
		models, err := readHub(hub, seen)
		if err != nil && i == 0 && !errors.Is(err, fs.ErrNotExist) {
			out.Error = err.Error()
		}
		for _, m := range models {
			out.Size += m.own
			if i > 0 {
				m.Path = hub
			}
			m.Workers = needing(env, needs, hub, m.Name)
			out.Models = append(out.Models, m.CacheModel)
		}
	}
	for _, n := range needs {
		for _, name := range n.Models {
			hub := hubFolder(env.over(n.Env))
			if !ValidName(name) || slices.ContainsFunc(out.Models, func(m api.CacheModel) bool { return m.Name == name }) {
				continue
			}
			m := api.CacheModel{Name: name, Workers: needing(env, needs, hub, name), Missing: []string{"config.json"}}
			if hub != main {
				m.Path = hub
			}
			out.Models = append(out.Models, m)
		}
	}
	slices.SortStableFunc(out.Models, func(a, b api.CacheModel) int { return cmp.Compare(a.Name, b.Name) })
	out.Models = Keep(out.Models, maxModels)
	out.Free, _ = freeBytes(main) // not known: 0, and Error says why the folder cannot be read
	return out
}

// Keep gives n of the models, by name: those that a worker needs before the others, and of each the largest.
func Keep(models []api.CacheModel, n int) []api.CacheModel {
	if len(models) <= n {
		return models
	}
	out := slices.Clone(models)
	slices.SortStableFunc(out, func(a, b api.CacheModel) int {
		needed := func(m api.CacheModel) int { return min(len(m.Workers), 1) }
		return cmp.Or(cmp.Compare(needed(b), needed(a)), cmp.Compare(b.Size, a.Size))
	})
	out = out[:n]
	slices.SortStableFunc(out, func(a, b api.CacheModel) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// hubsOf lists the hub folders that matter, that of the engine first.
func hubsOf(env Env, needs []Need) []string {
	hubs := []string{hubFolder(env)}
	for _, n := range needs {
		for _, hub := range n.hubs(env) {
			if hub != "" && !slices.Contains(hubs, hub) {
				hubs = append(hubs, hub)
			}
		}
	}
	return hubs
}

// hubs are the hub folders that a worker reads.
func (n Need) hubs(env Env) []string {
	hubs := []string{hubFolder(env.over(n.Env))}
	if n.Folder != "" {
		hubs = append(hubs, n.Folder)
	}
	return hubs
}

// needing lists the workers that need a model of a hub folder, by name or by a path into it.
func needing(env Env, needs []Need, hub, name string) []string {
	var out []string
	inside := filepath.Join(hub, folderOf(name)) + string(filepath.Separator)
	for _, n := range needs {
		uses := func(m string) bool {
			if m == name {
				return slices.Contains(n.hubs(env), hub)
			}
			if !filepath.IsAbs(m) {
				return false
			}
			if strings.HasPrefix(m+"/", inside) {
				return true
			}
			real, err := filepath.EvalSymlinks(m)
			return err == nil && strings.HasPrefix(real+"/", inside)
		}
		if slices.ContainsFunc(n.Models, uses) && !slices.Contains(out, n.Worker) {
			out = append(out, n.Worker)
		}
	}
	return out
}

// found is a model with the bytes that no model before it holds too.
type found struct {
	api.CacheModel
	own int64
}

func readHub(hub string, seen map[fileID]bool) ([]found, error) {
	entries, err := os.ReadDir(hub)
	if err != nil {
		return nil, fmt.Errorf("read model cache: %w", err)
	}
	access := keepsAccess(hub)
	var out []found
	for _, e := range entries {
		name, ok := nameOf(e.Name())
		dir := filepath.Join(hub, e.Name())
		if info, err := os.Stat(dir); !ok || err != nil || !info.IsDir() {
			continue
		}
		m := readModel(dir, seen)
		m.Name = name
		if !access {
			m.Used = time.Time{}
		}
		out = append(out, m)
	}
	return out, nil
}

// readModel looks at one model's folder. What cannot be read is as if it were not there.
func readModel(dir string, seen map[fileID]bool) found {
	var m found
	mine := map[fileID]bool{}
	count := func(info fs.FileInfo) {
		id, used := identify(info)
		if mine[id] {
			return
		}
		mine[id] = true
		m.Size += info.Size()
		if !seen[id] {
			seen[id] = true
			m.own += info.Size()
		}
		if used.After(m.Used) {
			m.Used = used
		}
	}
	blobs, _ := os.ReadDir(filepath.Join(dir, "blobs")) // none: the layout without links
	for _, b := range blobs {
		// Followed: a blob may be a link into the store that models share.
		info, err := os.Stat(filepath.Join(dir, "blobs", b.Name()))
		switch {
		case err != nil || !info.Mode().IsRegular():
		case strings.HasSuffix(b.Name(), ".incomplete"):
			m.Partial += info.Size()
		default:
			count(info)
		}
	}
	snap, rev := mainSnapshot(dir)
	m.Revision = rev
	missing := map[string]bool{}
	left := maxFiles
	_ = filepath.WalkDir(filepath.Join(dir, "snapshots"), func(path string, d fs.DirEntry, err error) error {
		if left--; err != nil || left < 0 {
			return fs.SkipAll
		}
		switch {
		case d.Type().IsRegular():
			if info, err := d.Info(); err == nil {
				count(info)
			}
		case d.Type()&fs.ModeSymlink != 0:
			if _, err := os.Stat(path); err != nil && snap != "" && strings.HasPrefix(path, snap+"/") {
				missing[strings.TrimPrefix(path, snap+"/")] = true
			}
		}
		return nil
	})
	if snap != "" {
		for _, file := range unindexed(snap) {
			missing[file] = true
		}
	}
	for file := range missing {
		m.Missing = append(m.Missing, file)
	}
	slices.Sort(m.Missing)
	m.Missing = m.Missing[:min(len(m.Missing), maxMissing)]
	return m
}

// mainSnapshot is the folder that main points to with its commit, else the newest one and "".
func mainSnapshot(dir string) (path, rev string) {
	if b, err := os.ReadFile(filepath.Join(dir, "refs", "main")); err == nil {
		if rev := strings.TrimSpace(string(b)); commit.MatchString(rev) {
			path := filepath.Join(dir, "snapshots", rev)
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				return path, rev
			}
		}
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "snapshots")) // none: ""
	var at time.Time
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && info.ModTime().After(at) {
			path, at = filepath.Join(dir, "snapshots", e.Name()), info.ModTime()
		}
	}
	return path, ""
}

// unindexed lists the weight files that a snapshot's index names and that are not there.
func unindexed(snap string) []string {
	for _, index := range []string{"model.safetensors.index.json", "pytorch_model.bin.index.json", "consolidated.safetensors.index.json"} {
		files, err := readIndex(filepath.Join(snap, index))
		if err != nil {
			continue
		}
		var out []string
		for _, f := range files {
			if _, err := os.Stat(filepath.Join(snap, f)); err != nil {
				out = append(out, f)
			}
		}
		if len(out) < len(files) || index == "model.safetensors.index.json" {
			return out
		}
		// Nothing of it is there: the model was fetched in another format.
	}
	return nil
}

// readIndex lists the files of a weight index, without changing when it was read last.
func readIndex(path string) ([]string, error) {
	f, err := openQuietly(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return indexFiles(f)
}

func indexFiles(r io.Reader) ([]string, error) {
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.NewDecoder(io.LimitReader(r, maxIndex)).Decode(&index); err != nil {
		return nil, fmt.Errorf("read weight index: %w", err)
	}
	var out []string
	for _, file := range index.Files {
		if validFile(file) {
			out = append(out, file)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
