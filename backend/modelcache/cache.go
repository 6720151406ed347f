package modelcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	readEvery    = time.Minute
	maxDownloads = 16 // that are shown, running ones and the last ones that ended
)

// Options is what a Cache is built from.
type Options struct {
	Env    Env
	Log    *slog.Logger
	Notice func(api.Notice) // nil: nobody is told
	Pause  time.Duration    // before the first retry, doubling; default 1s
}

// Cache looks after the model cache: it reads it once a minute and after changes, and fetches
// and removes models. Build it with New, run it with Run.
type Cache struct {
	opts   Options
	latest atomic.Pointer[api.Cache]
	poke   chan struct{}
	ctx    context.Context //nolint:containedctx // downloads outlive the order that began them, not Run
	end    context.CancelFunc
	wg     sync.WaitGroup // downloads

	mu        sync.Mutex // guards the following
	needs     []Need
	downloads []*download // oldest first; one per model
}

// New builds a Cache.
func New(o Options) *Cache {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Notice == nil {
		o.Notice = func(api.Notice) {}
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	c := &Cache{opts: o, poke: make(chan struct{}, 1)}
	c.ctx, c.end = context.WithCancel(context.Background())
	return c
}

// Run reads the cache until ctx ends; downloads end with it, and what they have stays.
func (c *Cache) Run(ctx context.Context) error {
	defer func() {
		c.mu.Lock() // no download begins any more
		c.end()
		c.mu.Unlock()
		c.wg.Wait()
	}()
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		// Apart, for a disk on a network may never answer, and the engine's end does not wait for it.
		read := make(chan *api.Cache, 1)
		needs := c.needed()
		go func() { read <- Read(c.opts.Env, needs) }()
		select {
		case v := <-read:
			c.latest.Store(v)
		case <-ctx.Done():
			return nil
		}
		select {
		case <-tick.C:
		case <-c.poke:
		case <-ctx.Done():
			return nil
		}
	}
}

// Need says what the workers of the config need now.
func (c *Cache) Need(needs []Need) {
	c.mu.Lock()
	c.needs = slices.Clone(needs)
	c.mu.Unlock()
	c.changed()
}

func (c *Cache) needed() []Need {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.needs
}

// changed has the cache read again soon.
func (c *Cache) changed() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// Latest is what was read last, with the downloads as they are now; nil before the first look, and where there
// is nothing to see.
func (c *Cache) Latest() *api.Cache {
	at := c.latest.Load()
	if at == nil {
		return nil
	}
	v := *at
	v.Downloads = c.Downloads()
	if len(v.Models) == 0 && len(v.Downloads) == 0 {
		return nil
	}
	return &v
}

// Downloads lists what is being fetched, and the last downloads that ended, oldest first.
func (c *Cache) Downloads() []api.Download {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.Download
	for _, d := range c.downloads {
		out = append(out, d.show(now))
	}
	return out
}

// Fetch begins to bring a model into the cache of the worker that needs it, else of the engine. An empty revision is
// the worker's, else main.
func (c *Cache) Fetch(name, rev string) error {
	if !ValidName(name) {
		return fmt.Errorf("%w: %q is no name of a model on the hub: write it as ORG/NAME", api.ErrRefused, clip(name))
	}
	if offline(c.opts.Env) {
		return fmt.Errorf("%w: HF_HUB_OFFLINE is set in the engine's environment: unset it there and restart the engine to fetch models", api.ErrRefused)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	env := c.opts.Env
	for _, n := range c.needs {
		if !slices.Contains(n.Models, name) {
			continue
		}
		env = c.opts.Env.over(n.Env)
		if rev == "" && n.Models[0] == name {
			rev = n.Revision
		}
		break
	}
	if rev == "" {
		rev = "main"
	}
	folder := hubFolder(env)
	switch {
	case !validRev(rev):
		return fmt.Errorf("%w: %q is no revision", api.ErrRefused, clip(rev))
	case folder == "":
		return fmt.Errorf("%w: there is no home folder for the cache: set HF_HOME for the engine", api.ErrRefused)
	case c.ctx.Err() != nil:
		return fmt.Errorf("%w: the engine is ending", api.ErrRefused)
	case slices.ContainsFunc(c.downloads, func(d *download) bool { v := d.show(time.Now()); return v.Name == name && v.State == running }):
		return fmt.Errorf("%w: %s is being fetched already", api.ErrRefused, name)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	d := &download{hub: folder, cancel: cancel, view: api.Download{Name: name, State: running, Started: time.Now()}}
	c.downloads = append(slices.DeleteFunc(c.downloads, func(d *download) bool { return d.view.Name == name }), d)
	c.forgetLocked()
	c.wg.Go(func() {
		defer cancel()
		c.ended(ctx, d, c.fetch(ctx, d, env, name, rev))
	})
	c.opts.Log.Info("model download begins", "model", name, "revision", rev, "folder", folder)
	return nil
}

// forgetLocked keeps the list of downloads short.
func (c *Cache) forgetLocked() {
	for i := 0; i < len(c.downloads) && len(c.downloads) > maxDownloads; {
		if c.downloads[i].show(time.Now()).State == running {
			i++
			continue
		}
		c.downloads = slices.Delete(c.downloads, i, i+1)
	}
}

func (c *Cache) ended(ctx context.Context, d *download, err error) {
	var v api.Download
	d.update(func(w *api.Download) {
		w.File = ""
		switch {
		case err == nil:
			w.State, w.Done = done, w.Size
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			w.State = cancelled
		default:
			w.State, w.Error = failed, tell(err)
		}
		v = *w
	})
	c.changed()
	took := time.Since(v.Started)
	switch v.State {
	case done:
		c.opts.Log.Info("model download done", "model", v.Name, "bytes", v.Size, "took", took)
		c.opts.Notice(api.Notice{Time: time.Now(), Level: "info", Text: fmt.Sprintf("%s is in the cache: %s in %v", v.Name, gib(v.Size), took.Round(time.Second))})
	case failed:
		c.opts.Log.Warn("model download failed", "model", v.Name, "error", v.Error)
		c.opts.Notice(api.Notice{Time: time.Now(), Level: "error", Text: fmt.Sprintf("%s was not fetched: %s", v.Name, v.Error)})
	default:
		c.opts.Log.Info("model download cancelled", "model", v.Name, "bytes", v.Done)
	}
}

// outstanding is what the other downloads on d's folder have still to write.
func (c *Cache) outstanding(d *download) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, o := range c.downloads {
		if v := o.show(time.Now()); o != d && o.hub == d.hub && v.State == running {
			n += max(v.Size-v.Done, 0)
		}
	}
	return n
}

// Cancel ends a download. What is there stays, and Fetch goes on from it.
func (c *Cache) Cancel(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.downloads {
		if v := d.show(time.Now()); v.Name == name && v.State == running {
			d.cancel()
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not being fetched", api.ErrRefused, clip(name))
}
