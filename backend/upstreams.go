package backend

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/route"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/config"
)

// upstreams is the gateway's view of the pool: names resolved, workers as candidates, each
// request's share of a worker's time.
type upstreams struct {
	pool  *worker.Pool
	paid  *providers
	names atomic.Pointer[names]

	mu    sync.RWMutex
	state map[string]*upstream // by worker
}

// upstream is what we keep of a worker beside its own status.
type upstream struct {
	mu      sync.Mutex // guards all
	breaker route.Breaker
	alone   time.Time   // it asked to be left alone until then
	born    time.Time   // when the process that meter is for started
	meter   *cost.Meter // of that process alone
}

// meterOf gives the meter of the process that started at born. An earlier process's meter stops.
func (s *upstream) meterOf(born, now time.Time) *cost.Meter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meter == nil || born.After(s.born) {
		if s.meter != nil {
			s.meter.Stop(now)
		}
		s.born, s.meter = born, cost.NewMeter(now)
	}
	return s.meter
}

// names is how requests find their workers; immutable.
type names struct {
	models  []config.Model
	resolve map[string]string     // name or alias: model
	workers map[string][]string   // model: workers, in the order of the config
	paid    map[string][]*paidAPI // model: providers that may serve it, in the order of the config
	wait    time.Duration         // how long a request may wait for a worker
	sim     map[string]bool       // models with simulated workers, which then has no other
	allSim  bool                  // there is nothing but simulated workers
}

func newUpstreams(pool *worker.Pool, paid *providers) *upstreams {
	u := &upstreams{pool: pool, paid: paid, state: map[string]*upstream{}}
	u.names.Store(&names{})
	return u
}

// apply takes the names of a new config.
func (u *upstreams) apply(c *config.Config) {
	n := &names{
		resolve: map[string]string{}, workers: map[string][]string{}, paid: map[string][]*paidAPI{}, wait: c.Gateway.QueueWait,
		sim: map[string]bool{}, allSim: len(c.Workers) > 0 && len(c.Providers) == 0,
	}
	for _, name := range c.ModelNames() {
		m := c.Model(name)
		n.models = append(n.models, m)
		n.resolve[m.Name] = m.Name
		for _, a := range m.Aliases {
			n.resolve[a] = m.Name
		}
		for _, a := range u.paid.list() {
			if m.Failover != config.FailoverNever && a.Serves(m.Name) {
				n.paid[m.Name] = append(n.paid[m.Name], a)
			}
		}
	}
	for _, w := range c.Workers {
		n.workers[w.Model] = append(n.workers[w.Model], w.Name)
		n.sim[w.Model] = n.sim[w.Model] || w.Sim != nil
		n.allSim = n.allSim && w.Sim != nil
	}
	u.names.Store(n)
}

// simulated says whether a model's workers are simulated; of a name that is no model, whether
// everything here is.
func (u *upstreams) simulated(model string) bool {
	n := u.names.Load()
	if _, known := n.resolve[model]; known {
		return n.sim[model]
	}
	return n.allSim
}

// of gives what we keep of a worker.
func (u *upstreams) of(name string) *upstream {
	u.mu.RLock()
	s := u.state[name]
	u.mu.RUnlock()
	if s != nil {
		return s
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if s = u.state[name]; s == nil {
		s = &upstream{}
		u.state[name] = s
	}
	return s
}

// Resolve implements gateway.Upstreams.
func (u *upstreams) Resolve(name string) (string, bool) {
	n := u.names.Load()
	if name == "" {
		if len(n.models) == 1 {
			return n.models[0].Name, true
		}
		return "", false
	}
	model, ok := n.resolve[name]
	return model, ok
}

// Models implements gateway.Upstreams.
func (u *upstreams) Models() []api.Model {
	n, now := u.names.Load(), time.Now()
	out := make([]api.Model, 0, len(n.models))
	for _, m := range n.models {
		am := api.Model{Name: m.Name, Aliases: m.Aliases, Baseline: m.Baseline}
		for _, a := range n.paid[m.Name] {
			am.Providers = append(am.Providers, a.Name())
			// Not while requests such as the last one find no room under the cap, though smaller ones might.
			am.Backed = am.Backed || u.paid.fit(a, m.Name, now) == api.ProviderOK && a.Status(now).State == api.ProviderOK
		}
		for _, name := range n.workers[m.Name] {
			w, ok := u.pool.Status(name)
			if !ok {
				continue
			}
			am.Workers++
			am.Simulated = am.Simulated || w.Simulated
			switch {
			case routable(&w):
				am.Ready++
			case wakes(&w):
				am.Asleep++
			}
			if w.MaxLen > 0 && (am.MaxLen == 0 || w.MaxLen < am.MaxLen) {
				am.MaxLen = w.MaxLen
			}
		}
		out = append(out, am)
	}
	return out
}

func routable(w *api.Worker) bool { return w.State == api.Ready && !w.Stalled }

// Candidates implements gateway.Upstreams.
func (u *upstreams) Candidates(model string, dst []route.Candidate) []route.Candidate {
	now := time.Now()
	n := u.names.Load()
	for _, a := range n.paid[model] {
		i := slices.IndexFunc(n.models, func(m config.Model) bool { return m.Name == model })
		dst = append(dst, u.paid.candidate(a, model, n.models[i].Failover == config.FailoverOverload, now))
	}
	for _, name := range n.workers[model] {
		w, inFlight := u.pool.Peek(name)
		if w == nil {
			continue
		}
		s := u.of(name)
		s.mu.Lock()
		open, busy := s.breaker.Open(now), now.Before(s.alone)
		s.mu.Unlock()
		dst = append(dst, route.Candidate{
			ID: name, Ready: routable(w), InFlight: inFlight, MaxSeqs: w.MaxSeqs, Waiting: or0(w.Waiting), KV: or0(w.KV), Open: open, Busy: busy,
			Coming: coming(w), Late: !comesWithin(w, n.wait, now), State: stateWord(w, busy),
		})
	}
	return dst
}

// coming says whether a worker that is not routable will be without anybody's doing.
func coming(w *api.Worker) bool {
	return w.State == api.Starting || w.State == api.Failed && !w.NextStart.IsZero() || w.State == api.Ready && w.Stalled || wakes(w)
}

// wakes says whether a worker sleeps, or is about to: a request for its model wakes it.
func wakes(w *api.Worker) bool {
	return w.State == api.Asleep || w.State == api.Draining && w.Phase != ""
}

func stateWord(w *api.Worker, busy bool) string {
	switch {
	case w.Stalled:
		return "stalled"
	case w.Phase != "" && wakes(w):
		return w.Phase
	case busy && w.State == api.Ready:
		return "busy, by its own word"
	}
	return string(w.State)
}

func or0(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// Changed implements gateway.Upstreams.
func (u *upstreams) Changed() <-chan struct{} { return u.pool.Changed() }

// Acquire implements gateway.Upstreams.
func (u *upstreams) Acquire(id string) (gateway.Lease, bool) {
	if a := u.paid.find(id); a != nil {
		return u.paid.lease(a), true
	}
	t, ok := u.pool.Target(id)
	if !ok {
		return gateway.Lease{}, false
	}
	release, ok := u.pool.Acquire(id)
	if !ok {
		return gateway.Lease{}, false
	}
	s := u.of(id)
	now := time.Now()
	s.mu.Lock()
	attempt := s.breaker.Begin(now)
	s.mu.Unlock()
	meter := s.meterOf(t.Started, now)
	mark := meter.Begin(now)
	var once sync.Once
	var share time.Duration
	var released time.Time
	return gateway.Lease{
		URL: t.URL, Model: t.Model, Key: t.Key, Simulated: t.Simulated,
		Release: func() time.Duration {
			once.Do(func() {
				released = time.Now()
				share = meter.End(released, mark)
				release()
			})
			return share
		},
		Beat: u.pool.Beat(id),
		Busy: func(d time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if at := time.Now().Add(d); at.After(s.alone) {
				s.alone = at
				time.AfterFunc(d, u.pool.Wake) // those who wait for it look again
			}
		},
		Report: func(r route.Result) {
			at := released // a moment ago, by the same goroutine
			if at.IsZero() {
				at = time.Now()
			}
			s.mu.Lock()
			s.breaker.End(attempt, r, at)
			s.mu.Unlock()
			if r == route.Failed {
				u.pool.Failed(id)
			}
		},
	}, true
}
