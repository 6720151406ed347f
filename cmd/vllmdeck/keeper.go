package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend"
	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/keys"
	"github.com/vllmdeck/vllmdeck/config"
)

// keeper is where keys are changed: the running engine, or, where none runs, its state folder.
type keeper struct {
	engine *api.Client
	snap   *api.Snapshot // of the engine

	cfg   *config.Config // without an engine
	state *backend.StateLock
}

// keeper finds the engine that the command line means. A demo has no keys and does not count. Where
// no engine runs, the config says which state folder is meant; to change keys it is held, so
// that no engine begins meanwhile.
func (g *globals) keeper(ctx context.Context, change bool) (*keeper, error) {
	c, err := g.keyEngine()
	if err != nil {
		return nil, err
	}
	if c != nil {
		s, err := fetch(ctx, c)
		if err != nil {
			c.Close()
			return nil, err
		}
		return &keeper{engine: c, snap: s}, nil
	}
	cfg, err := g.keyConfig()
	if err != nil {
		return nil, err
	}
	k := &keeper{cfg: cfg}
	if change {
		k.state, err = backend.OpenState(cfg.State)
		if held, ok := errors.AsType[*backend.HeldError](err); ok {
			err = &exitError{code: exitRunning, err: fmt.Errorf("%w: try again", held)}
		}
	}
	return k, err
}

// keyEngine dials the engine; nil where none runs.
func (g *globals) keyEngine() (*api.Client, error) {
	if g.engine != "" {
		return g.dial()
	}
	if g.config == "" {
		rec, err := findEngine(false)
		if err == nil {
			return api.Dial("unix:" + rec.Socket)
		}
		if !errors.Is(err, errNoEngine) {
			return nil, err
		}
	} else if path, ok, err := config.Find(g.config); err == nil && ok {
		for _, r := range runningEngines() {
			if sameFile(r.Config, path) {
				return api.Dial("unix:" + r.Socket)
			}
		}
	}
	// Where no runtime folder can be written, as in a read-only container, there are no records.
	if cfg, err := g.keyConfig(); err == nil {
		if rec, ok := engineOfState(cfg.State); ok {
			return api.Dial("unix:" + rec.Socket)
		}
	}
	return nil, nil
}

// keyConfig reads the config as if there were keys: it may be the first one that is about to be made.
func (g *globals) keyConfig() (*config.Config, error) {
	path, ok, err := config.Find(g.config)
	if err == nil && !ok {
		err = errors.New(`no engine runs and no config says where keys are kept: "vllmdeck init" writes one`)
	}
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	cfg, err := config.Reader{Prices: cost.Embedded().Known, Keys: func(string) bool { return true }}.Load(path)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	return cfg, nil
}

func (k *keeper) close() {
	if k.engine != nil {
		k.engine.Close()
	}
	if k.state != nil {
		_ = k.state.Close()
	}
}

// order carries out an order on keys. Its text never leaves this process: an order has the hash.
func (k *keeper) order(ctx context.Context, a api.Action) error {
	if k.engine != nil {
		return k.engine.Do(ctx, a)
	}
	if slices.ContainsFunc(k.cfg.Keys, func(c config.Key) bool { return c.Name == a.Target }) {
		return fmt.Errorf("the key %s is in the config: change it there", a.Target)
	}
	store, err := keys.Open(ctx, k.cfg.State)
	if err != nil {
		return err
	}
	err = errors.Join(store.Order(ctx, a, time.Now()), store.Close())
	if err == nil && a.Verb == api.KeyRevoke && a.Args["forget"] == "true" {
		_, err = capture.Forget(ctx, k.cfg.State, a.Target)
	}
	return err
}

// unknownModels are those of a key's limits that no model of the config is called: it may be asked for none of them now.
func (k *keeper) unknownModels(list string) (unknown, known []string) {
	if k.engine != nil {
		for _, m := range k.snap.Models {
			known = append(append(known, m.Name), m.Aliases...)
		}
	} else {
		for _, name := range k.cfg.ModelNames() {
			known = append(append(known, name), k.cfg.Model(name).Aliases...)
		}
	}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	return unknown, known
}

// noteModels warns of a limit to models that are not there.
func (k *keeper) noteModels(w io.Writer, key, list string) {
	if unknown, known := k.unknownModels(list); len(unknown) > 0 {
		fmt.Fprintf(w, "No model is called %s here now, so %s gets none of them; there are: %s\n", safe(strings.Join(unknown, ", ")), safe(key), safe(strings.Join(known, ", ")))
	}
}

// folder is the state folder; "" if it is not on this host.
func (k *keeper) folder() string {
	switch {
	case k.engine == nil:
		return k.cfg.State
	case strings.HasPrefix(k.engine.Addr(), "ssh://"):
		return ""
	}
	return k.snap.Engine.State
}

// list gives all keys, those that are revoked too where the database can be read from here.
func (k *keeper) list(ctx context.Context) ([]api.Key, error) {
	var out []api.Key
	if k.engine != nil {
		out = k.snap.Keys
	} else {
		for _, c := range k.cfg.Keys {
			out = append(out, api.Key{Name: c.Name, Source: api.KeyFromConfig, Limits: api.KeyLimits{Failover: c.Failover}, Capture: c.Capture})
		}
	}
	made, err := readKeys(ctx, k.folder())
	if err != nil && k.engine == nil {
		return nil, err
	}
	for i := range made {
		// The database is newer than the snapshot, which knows what was used.
		key := made[i].Key
		if at := slices.IndexFunc(out, func(o api.Key) bool { return o.ID == key.ID }); at >= 0 {
			key.Use = out[at].Use
			out[at] = key
		} else {
			out = append(out, key)
		}
	}
	slices.SortStableFunc(out, func(a, b api.Key) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// readKeys reads the keys in a state folder.
func readKeys(ctx context.Context, state string) ([]keys.Key, error) {
	if state == "" {
		return nil, nil
	}
	store, err := keys.Read(ctx, state)
	if errors.Is(err, keys.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.List(ctx)
}

// goodKeys counts the keys of a state folder that are in force.
func goodKeys(state string) int {
	made, err := readKeys(context.Background(), state)
	if err != nil {
		return 0 // the engine refuses to start with them, and says so
	}
	n := 0
	for i := range made {
		if made[i].State(time.Now()) == "active" {
			n++
		}
	}
	return n
}

// madeKeys says whether keys were made in a state folder.
func madeKeys(state string) bool { return keys.Any(context.Background(), state) }
