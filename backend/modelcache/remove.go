package modelcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Remove takes a model out of the cache: its files, its locks, and what the models of the cache
// share and no other needs. It is refused while a worker of the config needs the model, and while
// it is being fetched, by whomever.
func (c *Cache) Remove(ctx context.Context, name string) error {
	if !ValidName(name) {
		return fmt.Errorf("%w model %q in the cache", api.ErrUnknown, clip(name))
	}
	needs := c.needed()
	c.mu.Lock()
	busy := slices.ContainsFunc(c.downloads, func(d *download) bool { v := d.show(time.Now()); return v.Name == name && v.State == running })
	c.mu.Unlock()
	if busy {
		return fmt.Errorf("%w: %s is being fetched: \"vllmdeck models cancel %s\" first", api.ErrRefused, name, name)
	}
	removed := false
	for _, hub := range hubsOf(c.opts.Env, needs) {
		info, err := os.Lstat(filepath.Join(hub, folderOf(name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("remove model: %w", err)
		}
		if workers := needing(c.opts.Env, needs, hub, name); len(workers) > 0 {
			return fmt.Errorf("%w: %s is needed by %s: take that out of the config first", api.ErrRefused, name, strings.Join(workers, ", "))
		}
		if !info.IsDir() {
			return fmt.Errorf("%w: %s in %s is a link or file of somebody's making: remove it by hand", api.ErrRefused, folderOf(name), hub)
		}
		if err := removeFrom(ctx, hub, name); err != nil {
			return err
		}
		c.opts.Log.Info("model removed", "model", name, "folder", hub)
		removed = true
	}
	if !removed {
		return fmt.Errorf("%w model %q in the cache", api.ErrUnknown, name)
	}
	c.changed()
	return nil
}

// removeFrom removes a model from a hub folder. Everything happens beneath that folder, whatever links say.
func removeFrom(ctx context.Context, hub, name string) error {
	root, err := os.OpenRoot(hub)
	if err != nil {
		return fmt.Errorf("remove model: %w", err)
	}
	defer root.Close()
	folder := folderOf(name)
	unlock, err := lockAll(ctx, filepath.Join(hub, ".locks", folder))
	if err != nil {
		return err
	}
	defer unlock()
	shared := sharedBlobs(hub, folder)
	gone := ".removing-" + folder
	if err := root.RemoveAll(gone); err != nil { // of an engine that was killed meanwhile
		return fmt.Errorf("remove model: %w", err)
	}
	// By its new name nobody finds half of it.
	if err := root.Rename(folder, gone); err != nil {
		return fmt.Errorf("remove model: %w", err)
	}
	if err := root.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove model: %w", err)
	}
	for _, blob := range shared {
		if err := dropShared(ctx, hub, root, blob); err != nil {
			return err
		}
	}
	if err := root.RemoveAll(filepath.Join(".locks", folder)); err != nil {
		return fmt.Errorf("remove locks of model: %w", err)
	}
	return nil
}

// lockAll takes every lock of a model that there is; one that is held means a download.
func lockAll(ctx context.Context, dir string) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, f := range held {
			f()
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove model: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		f, err := lockFile(ctx, filepath.Join(dir, e.Name()), true)
		if errors.Is(err, errHeld) {
			err = fmt.Errorf("%w: another program is fetching the model now", api.ErrRefused)
		}
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, f)
	}
	return unlock, nil
}

var sharedBlob = regexp.MustCompile(`^blobs/([0-9a-f]{2})/([0-9a-f]{64})$`)

// sharedBlobs lists the files of huggingface_hub's store that a model's folder links to, relative to the
// hub folder. The store (hub/blobs/PREFIX/HASH) is shared by all models of it.
func sharedBlobs(hub, folder string) []string {
	dir := filepath.Join(hub, folder, "blobs")
	entries, _ := os.ReadDir(dir) // none: nothing shared
	var out []string
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		rel, err := filepath.Rel(hub, to)
		m := sharedBlob.FindStringSubmatch(filepath.ToSlash(rel))
		if err == nil && m != nil && strings.HasPrefix(m[2], m[1]) {
			out = append(out, rel)
		}
	}
	return out
}

// dropShared removes a file of the store unless another repository of the cache links to it.
func dropShared(ctx context.Context, hub string, root *os.Root, blob string) error {
	unlock, err := lockFile(ctx, filepath.Join(hub, blob)+".lock", false)
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(hub)
	if err != nil {
		return fmt.Errorf("remove shared file: %w", err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "--") && slices.Contains(sharedBlobs(hub, e.Name()), blob) {
			return nil
		}
	}
	for _, path := range []string{blob, blob + ".refs"} {
		if err := root.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove shared file: %w", err)
		}
	}
	return nil
}
