package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/modelcache"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/config"
)

// CacheEnv is the environment that says where this user's model cache is.
func CacheEnv(name string) string {
	v := os.Getenv(name)
	if v == "" && name == "HOME" { // as of a service
		if u, err := user.Current(); err == nil {
			return u.HomeDir
		}
	}
	return v
}

// CacheNeeds says what the workers of a config need of the model cache.
func CacheNeeds(c *config.Config) []modelcache.Need {
	var out []modelcache.Need
	for i := range c.Workers {
		w := &c.Workers[i]
		if w.VLLM == nil {
			continue
		}
		n := modelcache.Need{
			Worker: w.Name, Models: modelsOf(w.VLLM), Revision: worker.FlagValue(w.VLLM.Args, "revision"),
			Folder: worker.FlagValue(w.VLLM.Args, "download-dir"), Env: map[string]string{},
		}
		for name, value := range w.VLLM.Env {
			if cacheVariable(name) {
				n.Env[name] = refer(value)
			}
		}
		out = append(out, n)
	}
	return out
}

// modelsOf lists everything that a server reads as a model: itself, a tokenizer of another, a draft model, adapters.
func modelsOf(v *config.VLLM) []string {
	out := []string{v.Path}
	add := func(name string) {
		if name != "" {
			out = append(out, name)
		}
	}
	add(worker.FlagValue(v.Args, "tokenizer"))
	var draft struct {
		Model string `json:"model"`
	}
	if json.Unmarshal([]byte(worker.FlagValue(v.Args, "speculative-config")), &draft) == nil {
		add(draft.Model)
	}
	for _, arg := range v.Args {
		// --lora-modules takes any number of NAME=PATH: whatever looks like one is taken.
		_, path, ok := strings.Cut(arg, "=")
		if name, inner, two := strings.Cut(path, "="); two && strings.HasPrefix(arg, "--lora-modules") {
			_, path = name, inner
		}
		if ok && (!strings.HasPrefix(arg, "--") || strings.HasPrefix(arg, "--lora-modules")) && modelcache.ValidName(path) && strings.Contains(path, "/") {
			add(path)
		}
	}
	return out
}

func cacheVariable(name string) bool {
	return strings.HasPrefix(name, "HF_") || strings.HasPrefix(name, "HUGGING") || name == "XDG_CACHE_HOME" || name == "HOME"
}

// refer reads a variable of a worker that may be env:NAME or file:PATH. One that cannot be read is empty: the start of
// the worker says so.
func refer(value string) string {
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		return os.Getenv(name)
	}
	if path, ok := strings.CutPrefix(value, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return value
}

// orderCache carries out an order on the model cache.
func (b *Backend) orderCache(ctx context.Context, a api.Action) error {
	if b.opts.Demo {
		return fmt.Errorf("%w: the demo has no model cache", api.ErrRefused)
	}
	switch a.Verb {
	case api.CacheFetch:
		return b.cache.Fetch(a.Target, a.Args["revision"])
	case api.CacheCancel:
		return b.cache.Cancel(a.Target)
	default:
		return b.cache.Remove(ctx, a.Target)
	}
}

// cacheState is the model cache as a snapshot shows it. A demo shows none: what it shows is simulated, and this would be real.
func (b *Backend) cacheState() *api.Cache {
	if b.opts.Demo {
		return nil
	}
	return b.cache.Latest()
}
