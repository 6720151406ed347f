package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/keys"
	"github.com/vllmdeck/vllmdeck/config"
)

// guessable is how long a key of the config must be, in characters, to count as beyond guessing.
const guessable = 24

// clientKeys gives the keys of the config and those of the database, as the gateway keeps them.
// One name must be one key.
func (b *Backend) clientKeys(ctx context.Context, c *config.Config) ([]gateway.Key, error) {
	made, err := b.keys.List(ctx)
	if err != nil {
		return nil, err
	}
	if len(c.Keys)+len(made) == 0 {
		return nil, nil
	}
	now := time.Now()
	month, err := b.ledger.SpendByKey(ctx, periods["month"](now), c.Simulated())
	if err != nil {
		return nil, err
	}
	day, err := b.ledger.SpendByKey(ctx, periods["today"](now), c.Simulated())
	if err != nil {
		return nil, err
	}
	spent := func(name string) gateway.Spent {
		return gateway.Spent{Day: day[name].Known, Month: month[name].Known, Unpriced: month[name].Unpriced}
	}
	var out []gateway.Key
	for _, k := range c.Keys {
		out = append(out, gateway.Key{
			Key: api.Key{Name: k.Name, Source: api.KeyFromConfig, Limits: api.KeyLimits{Failover: k.Failover}, Capture: k.Capture}, Hash: gateway.HashKey(k.Key.Val),
			Guessable: len(k.Key.Val) < guessable, Spent: spent(k.Name),
		})
	}
	for _, k := range made {
		if k.Revoked.IsZero() && inConfig(c, k.Name) {
			return nil, fmt.Errorf("%w: the key %s is in the config and was made with \"vllmdeck keys\" too: name it differently in the config, or revoke the other", api.ErrRefused, k.Name)
		}
		out = append(out, gateway.Key{Key: k.Key, Hash: k.Hash, Old: k.Old, Until: k.Until, Spent: spent(k.Name)})
	}
	return out, nil
}

func inConfig(c *config.Config, name string) bool {
	return slices.ContainsFunc(c.Keys, func(k config.Key) bool { return k.Name == name })
}

// orderKeys carries out an order on keys. When it returns, the gateway works by it.
func (b *Backend) orderKeys(ctx context.Context, a api.Action) error {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	c := b.config.Load()
	if b.opts.Demo {
		return fmt.Errorf("%w: the demo's own clients have no key", api.ErrRefused)
	}
	if inConfig(c, a.Target) {
		return fmt.Errorf("%w: the key %s is in the config: change it there", api.ErrRefused, a.Target)
	}
	if a.Verb == api.KeyRevoke && a.Args["forget"] == "true" && c.NeedsKeys() && len(c.Keys) == 0 {
		made, err := b.keys.List(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(made, func(k keys.Key) bool { return k.Name != a.Target }) {
			return fmt.Errorf("%w: it is the last key, and the gateway listens on %s: without one, anybody on the network could use the models; revoke it without forgetting it", api.ErrRefused, c.Listen)
		}
	}
	// Half an order would be one that a crash could lose: what is begun is finished.
	ctx = context.WithoutCancel(ctx)
	if err := b.keys.Order(ctx, a, time.Now()); err != nil {
		return err
	}
	if a.Verb == api.KeyRevoke && a.Args["forget"] == "true" {
		if _, err := capture.Forget(ctx, c.State, a.Target); err != nil {
			return errors.Join(err, b.refreshKeys(ctx))
		}
	}
	return b.refreshKeys(ctx)
}

// refreshKeys brings the keys to the gateway anew.
func (b *Backend) refreshKeys(ctx context.Context) error {
	list, err := b.clientKeys(ctx, b.config.Load())
	if err != nil {
		return err
	}
	b.gateway.Keys.Set(list)
	return nil
}
