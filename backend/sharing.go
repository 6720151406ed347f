package backend

import (
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// sharesOf lists, by worker, what those share that take turns: GPUs, and what sleep.share says. What one of them has while
// another sleeps is paid for once.
func sharesOf(c *config.Config) map[string][]string {
	out := map[string][]string{}
	for i := range c.Workers {
		w := &c.Workers[i]
		if w.Sleep == nil {
			continue
		}
		var keys []string
		if w.VLLM != nil {
			for _, g := range w.VLLM.GPUs {
				keys = append(keys, "gpu "+g)
			}
		}
		if w.Sleep.Share != "" {
			keys = append(keys, "share "+w.Sleep.Share)
		}
		if len(keys) > 0 {
			out[w.Name] = keys
		}
	}
	return out
}

// pays says whether a worker's time costs something now. One that sleeps still has its GPU, and pays for it, until
// others have all that it had; of several that sleep on one GPU the last to fall asleep pays. since is when
// the others had it.
func pays(workers []api.Worker, w *api.Worker, shares map[string][]string) (ok bool, since time.Time) {
	if !runs(*w) {
		return false, time.Time{}
	}
	mine := shares[w.Name]
	if w.State != api.Asleep || len(mine) == 0 {
		return true, time.Time{}
	}
	for _, key := range mine {
		var from time.Time
		taken := false
		for i := range workers {
			o := &workers[i]
			if o.Name == w.Name || !runs(*o) || !slices.Contains(shares[o.Name], key) {
				continue
			}
			switch {
			case o.State != api.Asleep:
				from, taken = awakeSince(o), true
			case !taken && later(o, w):
				from, taken = o.Since, true
			}
		}
		if !taken {
			return true, time.Time{}
		}
		if from.After(since) {
			since = from
		}
	}
	return false, since
}

func later(o, w *api.Worker) bool {
	return o.Since.After(w.Since) || o.Since.Equal(w.Since) && o.Name > w.Name
}

// awakeSince is when a worker's process started, or last woke.
func awakeSince(w *api.Worker) time.Time {
	if w.Awake.After(w.Started) {
		return w.Awake
	}
	return w.Started
}
