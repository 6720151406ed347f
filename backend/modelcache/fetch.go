package modelcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	parallel = 4 // files of one model at once

	// diskRoom is what must stay free on the disk beside the model itself.
	diskRoom = 64 << 20
)

// fetch brings a model into the hub folder of d: what vLLM needs of it, each file under its lock and checked against
// its hash. What is there is kept, so that a download that was broken off goes on.
func (c *Cache) fetch(ctx context.Context, d *download, env Env, name, rev string) error {
	base, err := endpoint(env)
	if err != nil {
		return err
	}
	transport := newTransport()
	defer transport.CloseIdleConnections()
	h := &hub{base: base, token: readToken(env), name: name, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // hub.do follows them itself
	}}
	var sha string
	var names []string
	if err := c.retry(ctx, func() (err error) {
		sha, names, err = h.files(ctx, rev)
		return err
	}); err != nil {
		return err
	}
	names, weights := wanted(names)
	if !weights {
		return fmt.Errorf("%s has no weights that vLLM loads: it takes safetensors and bin", name)
	}
	s := &store{dir: filepath.Join(d.hub, folderOf(name)), locks: filepath.Join(d.hub, ".locks", folderOf(name)), sha: sha, hub: h, d: d, retry: c.retry}
	if index := indexOf(names); index != "" {
		f, err := s.ask(ctx, index)
		if err != nil {
			return err
		}
		if err := s.file(ctx, f); err != nil {
			return err
		}
		listedFiles, err := readIndex(filepath.Join(s.snapshot(), index))
		if err != nil {
			return err
		}
		names = listed(names, listedFiles)
	}
	files := make([]file, len(names))
	if err := each(ctx, len(names), func(ctx context.Context, i int) (err error) {
		files[i], err = s.ask(ctx, names[i])
		return err
	}); err != nil {
		return err
	}
	if err := c.makeRoom(d, s, files); err != nil {
		return err
	}
	if err := each(ctx, len(files), func(ctx context.Context, i int) error { return s.file(ctx, files[i]) }); err != nil {
		return err
	}
	// Last, so that main never points to a snapshot that is not whole.
	return s.ref(rev)
}

// each runs f for 0 to n-1, some at once, until one fails.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return f(ctx, i)
		})
	}
	return g.Wait()
}

// makeRoom says how much there is to do, and refuses what the disk cannot hold beside the other downloads.
func (c *Cache) makeRoom(d *download, s *store, files []file) error {
	var size, have int64
	seen := map[string]bool{}
	for _, f := range files {
		if !seen[f.etag] {
			seen[f.etag] = true
			size += f.size
			have += s.has(f)
		}
	}
	d.update(func(v *api.Download) { v.Size, v.Done = size, 0 }) // what is there is counted file by file
	free, err := freeBytes(d.hub)
	if err != nil {
		return err
	}
	need := size - have
	if others := c.outstanding(d); need+others+diskRoom > free {
		also := ""
		if others > 0 {
			also = ", other downloads another " + gib(others)
		}
		return fmt.Errorf("the disk of %s has %s free and this needs %s%s: remove a model (\"vllmdeck models remove\"), or set HF_HOME to a larger disk", d.hub, gib(free), gib(need), also)
	}
	return nil
}

func gib(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 10<<10:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d B", n)
}

// tries is how often in a row the hub may fail without a byte.
const tries = 5

// retry runs f again while the network or the hub is at fault.
func (c *Cache) retry(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		var net *netError
		var busy *busyError
		var more *progressError
		switch {
		case err == nil || ctx.Err() != nil:
			if err != nil {
				return context.Cause(ctx)
			}
			return nil
		case errors.As(err, &more):
			n = 1
		case !errors.As(err, &net) && !errors.As(err, &busy):
			return err
		}
		if n >= tries {
			return fmt.Errorf("gave up after %d tries: %w; what is there is kept: fetch it again to go on", tries, err)
		}
		wait := c.opts.Pause << (n - 1)
		if busy != nil && busy.after > wait {
			wait = busy.after
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// progressError is a failure after bytes came: it does not count as one in a row.
type progressError struct{ err error }

func (e *progressError) Error() string { return e.err.Error() }
func (e *progressError) Unwrap() error { return e.err }

// store is one model's folder at one commit, while it is filled.
type store struct {
	dir   string // models--ORG--NAME
	locks string
	sha   string
	hub   *hub
	d     *download
	retry func(context.Context, func() error) error
}

func (s *store) snapshot() string   { return filepath.Join(s.dir, "snapshots", s.sha) }
func (s *store) blob(f file) string { return filepath.Join(s.dir, "blobs", f.etag) }
func (s *store) pointer(f file) string {
	return filepath.Join(s.snapshot(), filepath.FromSlash(f.name))
}
func (s *store) partial(f file) string { return s.blob(f) + ".incomplete" }
func size(path string) (n int64, ok bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// has is how many bytes of a file are there.
func (s *store) has(f file) int64 {
	for _, path := range []string{s.blob(f), s.pointer(f), s.partial(f)} {
		if n, ok := size(path); ok && n <= f.size {
			return n
		}
	}
	return 0
}

func (s *store) ask(ctx context.Context, name string) (f file, err error) {
	err = s.retry(ctx, func() (err error) {
		f, err = s.hub.head(ctx, s.sha, name)
		return err
	})
	return f, err
}

// ref points a branch or tag to the commit.
func (s *store) ref(rev string) error {
	if rev == s.sha {
		return nil
	}
	path := filepath.Join(s.dir, "refs", filepath.FromSlash(rev))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("write revision: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write revision: %w", err)
	}
	_, err = f.WriteString(s.sha)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write revision: %w", err)
	}
	return nil
}

// hidden is an error without an address in it: those of a CDN are signed.
func hidden(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// tell words the end of a download for an operator.
func tell(err error) string {
	if noSpace(err) {
		return "the disk is full: remove a model (\"vllmdeck models remove\"), or set HF_HOME to a larger disk; what is there is kept"
	}
	return api.Shorten(strings.TrimSpace(hidden(err).Error()), 500)
}
