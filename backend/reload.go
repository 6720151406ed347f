package backend

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/config"
)

// apply takes a config: names, prices, limits, workers. It is all or nothing as far as that
// can be known beforehand: config.Load has checked it.
func (b *Backend) apply(ctx context.Context, c *config.Config) error {
	list, err := b.clientKeys(ctx, c)
	if err != nil {
		return err
	}
	secrets := secretNames(c)
	if old := b.secrets.Load(); old != nil {
		secrets = append(secrets, *old...)
		slices.Sort(secrets)
		secrets = slices.Compact(secrets)
	}
	b.secrets.Store(&secrets) // before the pool starts anything
	p := newPricing(cost.Embedded(), c)
	if err := b.pool.Apply(c); err != nil {
		return err
	}
	if err := b.providers.apply(c, p.table); err != nil {
		return err
	}
	if err := b.providers.load(ctx, time.Now()); err != nil {
		b.log.Error("what providers have cost is not known yet", "error", err) // it is asked again
	}
	b.upstreams.apply(c)
	b.cache.Need(CacheNeeds(c))
	b.pricing.Store(p)
	b.config.Store(c)
	b.captures.Limit(c.Capture.Keep, int64(c.Capture.Size))
	b.gateway.Keys.Simulated(c.Simulated())
	b.gateway.Keys.Set(list)
	return nil
}

// reload reads the config again. What cannot change while the engine runs is refused by name.
func (b *Backend) reload(ctx context.Context) error {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	if b.opts.Load == nil {
		return fmt.Errorf("%w: this engine has no config file", api.ErrRefused)
	}
	c, err := b.opts.Load()
	if err != nil {
		return fmt.Errorf("%w: the config stays as it was: %w", api.ErrRefused, err)
	}
	old := b.config.Load()
	switch {
	case c.State != old.State:
		return fmt.Errorf("%w: state: cannot change while the engine runs: \"vllmdeck stop\", then start it", api.ErrRefused)
	case c.Listen != old.Listen, !reflect.DeepEqual(c.TLS, old.TLS):
		return fmt.Errorf("%w: listen: and tls: change by \"vllmdeck restart\"", api.ErrRefused)
	}
	if err := b.apply(ctx, c); err != nil {
		return err
	}
	if later := needRestart(old, c); len(later) > 0 {
		b.notice(api.Notice{Level: "warning", Text: "what changed in " + strings.Join(later, ", ") + " takes effect with \"vllmdeck restart\""})
	}
	b.warn(c)
	b.log.Info("config reloaded", "path", c.Path)
	return nil
}

// needRestart lists the keys in which two configs differ and of which an engine that runs keeps what it began with.
func needRestart(old, c *config.Config) []string {
	var out []string
	for key, same := range map[string]bool{
		"gateway:":       reflect.DeepEqual(c.Gateway, old.Gateway),
		"media_domains:": slices.Equal(c.MediaDomains, old.MediaDomains),
		"health:":        c.Health == old.Health,
		"logs:":          c.Logs == old.Logs,
	} {
		if !same {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// warn shows what is odd in a config.
func (b *Backend) warn(c *config.Config) {
	for _, text := range c.Warnings {
		b.notice(api.Notice{Level: "warning", Text: text})
	}
}
