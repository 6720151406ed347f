package main

import (
	"context"

	"github.com/vllmdeck/vllmdeck/backend"
	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/modelcache"
	"github.com/vllmdeck/vllmdeck/config"
)

// cacheKeeper is who looks after the model cache: the running engine, or, where none runs, this process.
type cacheKeeper struct {
	src    cacheOrders
	engine *api.Client // nil: there is none
	end    func()
}

// cacheOrders takes the orders cache.*.
type cacheOrders interface {
	Do(ctx context.Context, a api.Action) error
}

// cacheKeeper finds it. Without an engine the config says what workers need; strict: it is an error if it cannot be read.
func (g *globals) cacheKeeper(ctx context.Context, strict bool) (*cacheKeeper, error) {
	c, err := g.keyEngine()
	if err != nil {
		return nil, err
	}
	if c != nil {
		return &cacheKeeper{src: c, engine: c, end: c.Close}, nil
	}
	var needs []modelcache.Need
	path, found, err := config.Find(g.config)
	if err == nil && found {
		var cfg *config.Config
		if cfg, err = (config.Reader{Prices: cost.Embedded().Known, Keys: func(string) bool { return true }}).Load(path); err == nil {
			needs = backend.CacheNeeds(cfg)
		}
	}
	if err != nil && strict {
		return nil, &exitError{code: exitUsage, err: err}
	}
	own := &ownCache{cache: modelcache.New(modelcache.Options{Env: backend.CacheEnv}), needs: needs}
	own.cache.Need(needs)
	rctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = own.cache.Run(rctx) // it ends with its context
	}()
	return &cacheKeeper{src: own, end: func() {
		cancel()
		<-done
	}}, nil
}

func (k *cacheKeeper) close() { k.end() }

// look gives the cache as it is now.
func (k *cacheKeeper) look(ctx context.Context) (*api.Cache, error) {
	if own, ok := k.src.(*ownCache); ok {
		return own.look(), nil
	}
	s, err := fetch(ctx, k.engine)
	if err != nil {
		return nil, err
	}
	if s.Cache == nil {
		return &api.Cache{Models: []api.CacheModel{}}, nil
	}
	return s.Cache, nil
}

// downloads lists those that run, and the last ones that ended.
func (k *cacheKeeper) downloads(ctx context.Context) ([]api.Download, error) {
	if own, ok := k.src.(*ownCache); ok {
		return own.cache.Downloads(), nil
	}
	c, err := k.look(ctx)
	if err != nil {
		return nil, err
	}
	return c.Downloads, nil
}

// ownCache is the cache of this process, as an engine would have it.
type ownCache struct {
	cache *modelcache.Cache
	needs []modelcache.Need
}

// look reads the disk now: nobody did before.
func (o *ownCache) look() *api.Cache {
	c := modelcache.Read(backend.CacheEnv, o.needs)
	c.Downloads = o.cache.Downloads()
	return c
}

// Do implements cacheOrders.
func (o *ownCache) Do(ctx context.Context, a api.Action) error {
	if a.Verb == api.CacheFetch {
		return o.cache.Fetch(a.Target, a.Args["revision"])
	}
	return o.cache.Remove(ctx, a.Target)
}
