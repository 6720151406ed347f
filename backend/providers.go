package backend

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
	"github.com/vllmdeck/vllmdeck/backend/provider"
	"github.com/vllmdeck/vllmdeck/backend/route"
	"github.com/vllmdeck/vllmdeck/config"
)

// providers are the paid APIs of the config, and those that were in it: requests may still be with
// them, and what they cost today counts again when they come back.
type providers struct {
	ledger    *ledger.Ledger
	failovers failovers

	mu     sync.RWMutex
	all    map[string]*paidAPI
	listed []*paidAPI // in the order of the config
}

// paidAPI is a provider with its breaker.
type paidAPI struct {
	*provider.Provider
	mu      sync.Mutex // guards breaker
	breaker route.Breaker
}

// specOf makes what a Provider is built from.
func specOf(c *config.Provider) provider.Spec {
	s := provider.Spec{Name: c.Name, URL: c.URL, Key: c.Key.Val, Models: map[string]provider.Model{}, Day: c.SpendCap.Day, Month: c.SpendCap.Month}
	if c.OutputLimit != config.LimitAsSent {
		s.Limit = c.OutputLimit
	}
	for ours, theirs := range c.Models {
		s.Models[ours] = provider.Model{Name: theirs, Ref: c.PriceRef(ours)}
	}
	return s
}

// apply takes the providers of a new config. Those that stay keep their money and their requests.
func (p *providers) apply(c *config.Config, table *cost.Table) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var listed []*paidAPI
	fresh := map[string]*paidAPI{}
	for i := range c.Providers {
		s := specOf(&c.Providers[i])
		a := p.all[s.Name]
		if a == nil {
			made, err := provider.New(s, table)
			if err != nil {
				return err
			}
			a = &paidAPI{Provider: made}
			fresh[s.Name] = a
		} else if err := a.Update(s); err != nil {
			return err
		}
		listed = append(listed, a)
	}
	for name, a := range fresh {
		if p.all == nil {
			p.all = map[string]*paidAPI{}
		}
		p.all[name] = a
	}
	p.listed = listed
	for _, a := range p.all {
		if !slices.Contains(listed, a) {
			a.Close()
		}
	}
	return nil
}

// list gives the providers of the config.
func (p *providers) list() []*paidAPI {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.listed
}

// find gives a provider of the config by its name.
func (p *providers) find(name string) *paidAPI {
	for _, a := range p.list() {
		if a.Name() == name {
			return a
		}
	}
	return nil
}

// load reads from the ledger what providers have cost this month, where that is not known yet.
func (p *providers) load(ctx context.Context, now time.Time) error {
	list := p.list()
	if !slices.ContainsFunc(list, func(a *paidAPI) bool { return !a.Loaded() }) {
		return nil
	}
	paid, err := p.ledger.Paid(ctx, periods["month"](now))
	if err != nil {
		return err
	}
	for _, a := range list {
		var spent []provider.Spent
		for _, d := range paid {
			if d.Provider == a.Name() {
				spent = append(spent, provider.Spent{Day: d.Day, Amount: d.Amount, Unknown: d.Unknown})
			}
		}
		a.Load(spent)
	}
	return nil
}

// any says whether there is or was a provider.
func (p *providers) any() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.all) > 0
}

// each calls f with every provider there is or was.
func (p *providers) each(f func(a *paidAPI)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, a := range p.all {
		f(a)
	}
}

func (p *providers) close() { p.each(func(a *paidAPI) { a.Close() }) }

// fit gives the state in which a provider meets a request for a model now.
func (p *providers) fit(a *paidAPI, model string, now time.Time) string {
	if !p.ledger.Durable() {
		return api.ProviderUnaccountable
	}
	state := a.Fit(model, now)
	if state == api.ProviderOK && a.open(now) {
		state = api.ProviderOpen
	}
	return state
}

func (a *paidAPI) open(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.breaker.Open(now)
}

func (a *paidAPI) tripped() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.breaker.Tripped()
}

// statuses is what a snapshot shows of the providers.
func (p *providers) statuses(now time.Time) []api.Provider {
	var out []api.Provider
	for _, a := range p.list() {
		s := a.Status(now)
		switch {
		case !p.ledger.Durable():
			s.State, s.Error = api.ProviderUnaccountable, "the ledger cannot be written: what a request costs would be forgotten"
		case s.State == api.ProviderOK && a.tripped():
			s.State = api.ProviderOpen // also while it waits for the request that is to be its probe
		}
		out = append(out, s)
	}
	return out
}

// candidate is how a provider stands for a model.
func (p *providers) candidate(a *paidAPI, model string, overload bool, now time.Time) route.Candidate {
	state := p.fit(a, model, now)
	c := route.Candidate{ID: a.Name(), Provider: true, Overload: overload, State: stateWords[state], Open: state == api.ProviderOpen}
	c.Ready = c.Open || state == api.ProviderOK
	return c
}

// stateWords are the states of a provider in the words of an error.
var stateWords = map[string]string{
	api.ProviderOK: "ready", api.ProviderOpen: "failing", api.ProviderCapped: "its spend_cap is reached", api.ProviderUnaccountable: "its cost cannot be accounted for",
}

// lease takes a place for a request at a provider.
func (p *providers) lease(a *paidAPI) gateway.Lease {
	a.mu.Lock()
	attempt := a.breaker.Begin(time.Now())
	a.mu.Unlock()
	call := a.Begin()
	return gateway.Lease{
		URL: call.URL(), Client: call.Client(), Limit: call.Limit(),
		Reserve: func(n gateway.Need) (string, error) {
			if !p.ledger.Durable() {
				return "", errors.New(stateWords[api.ProviderUnaccountable])
			}
			if err := call.Reserve(provider.Need(n)); err != nil {
				return "", err
			}
			p.failovers.paid(n.Model, a.Name(), time.Now())
			return call.Model(n.Model), nil
		},
		Release: func() time.Duration {
			call.Release()
			return 0 // a provider is paid by the token, not by the time
		},
		Report: func(r route.Result) {
			if r == route.Neutral && call.Troubled() {
				r = route.Failed // to a worker its own queue is full; to us the provider is of no use
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.breaker.End(attempt, r, time.Now())
		},
	}
}
