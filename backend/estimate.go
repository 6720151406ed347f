package backend

import (
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// estimates learns what tokens cost on each model, for what is held of a budget while a request is
// in flight. It is in no sum: what a request did cost takes its place.
type estimates struct {
	mu sync.Mutex
	by map[string]estimate // by model
}

type estimate struct {
	perToken float64 // nano-dollars per output token, mean over about the last 32 requests
	n        int
}

const (
	estimateSpan = 32
	// promptShare is what a prompt token takes of the time of an output token: prompts are computed
	// many tokens at a time.
	promptShare = 0.1
	// slowToken is how long an output token is taken to need while nothing is known: 20 tokens per
	// second, alone on the worker.
	slowToken = 50 * time.Millisecond
)

func weight(prompt, completion int64) float64 {
	return float64(completion) + promptShare*float64(prompt)
}

// learn takes in a request that has ended.
func (e *estimates) learn(r *api.Request) {
	w := weight(r.Usage.Prompt(), r.Usage.Completion())
	if r.Outcome != api.OutcomeOK || r.Actual == nil || r.UsageSource != api.UsageUpstream || w <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.by[r.Model]
	m.n = min(m.n+1, estimateSpan)
	m.perToken += (float64(*r.Actual)/w - m.perToken) / float64(m.n)
	if e.by == nil {
		e.by = map[string]estimate{}
	}
	e.by[r.Model] = m
}

// of gives the learned estimate; false where there is none.
func (e *estimates) of(model string, w float64) (api.Nanos, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.by[model]
	return api.Nanos(m.perToken * w), m.n > 0
}

// estimate says what a request may cost: at flat rates exactly, else by what requests of the model
// cost lately, else as if it were alone on the dearest of its workers. False if a worker that may
// serve it has no rate: then nobody will know what it did cost.
func (b *Backend) estimate(model string, prompt, completion int64) (api.Nanos, bool) {
	p := b.pricing.Load()
	if p.perToken != nil {
		return cost.Cost(*p.perToken, api.Usage{Input: prompt, Output: completion})
	}
	workers := b.upstreams.names.Load().workers[model]
	hour := api.Nanos(0)
	for _, name := range workers {
		h := p.hours[name]
		if h == nil {
			return 0, false
		}
		hour = max(hour, *h)
	}
	w := weight(prompt, completion)
	if n, ok := b.estimates.of(model, w); ok {
		return n, true
	}
	if len(workers) == 0 {
		return b.estimatePaid(model, api.Usage{Input: prompt, Output: completion})
	}
	return cost.Share(hour, time.Duration(w*float64(slowToken))), true
}

// estimatePaid is what the dearest provider of a model charges; false where there is none with a price.
func (b *Backend) estimatePaid(model string, u api.Usage) (api.Nanos, bool) {
	table := b.pricing.Load().table
	most, known := api.Nanos(0), false
	providers := b.config.Load().Providers
	for i := range providers {
		pr := &providers[i]
		if _, ok := pr.Models[model]; !ok {
			continue
		}
		price, ok := table.At(pr.PriceRef(model), time.Now())
		if !ok {
			return 0, false
		}
		n, ok := price.Cost(u)
		if !ok {
			return 0, false
		}
		most, known = max(most, n), true
	}
	return most, known
}
